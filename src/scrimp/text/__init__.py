"""Text in and out: tokenizer, chat template, sampling, stop strings, and the loop that generates."""
