"""What a model costs and what it lost: perplexity, divergence, tasks, speed, side by side."""
