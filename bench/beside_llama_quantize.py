"""llama.cpp's own quantizer beside ours: the same weights, the same calibration text, one evaluation, equal file bytes.

    python bench/beside_llama_quantize.py ../shared/data/text/wikitext2_valid.txt [--ours METHOD] [--work DIR]

Both start from the model's weights decoded to float32, written as a GGUF for llama.cpp. Its importance matrix is made
from the text that calibrates ours, all of it. What it writes
is read by scrimp, and all models are evaluated in float32 arithmetic, so that only the weights differ; ours is measured
also as it runs, with int8 activations.

llama-quantize and llama-imatrix are built from the source distribution of llama-cpp-python, unless --llama names a
directory that holds them. Everything is kept in --work, and a second run continues.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np

import scrimp
from scrimp.engine import Arithmetic
from scrimp.measure.evaluate import Evaluation, evaluate_all
from scrimp.measure.windows import calibration_text
from scrimp.sources.locate import locate

TYPES = ("Q4_K_M", "Q3_K_M", "Q2_K", "IQ3_XXS", "IQ2_M")
PACKAGE = "llama-cpp-python==0.3.36"
#: Tokens in a window of both calibrations.
WINDOW = 512


def tools(work: Path) -> Path:
    """The directory of llama-quantize and llama-imatrix, built when they are not there."""
    binaries = work / "build" / "bin"
    if (binaries / "llama-imatrix").exists() and (binaries / "llama-quantize").exists():
        return binaries
    build_needs = ["scikit-build-core", "packaging"]
    pip = [sys.executable, "-m", "pip"]
    run([*pip, "download", "--no-deps", "--no-binary", ":all:", "-d", str(work), PACKAGE, "-q"], needs=build_needs)
    archive = next(work.glob("llama_cpp_python-*.tar.gz"))
    with tarfile.open(archive) as file:
        file.extractall(work, filter="data")
    source = archive.with_name(archive.name.removesuffix(".tar.gz")) / "vendor" / "llama.cpp"
    off = ("LLAMA_BUILD_TESTS", "LLAMA_BUILD_EXAMPLES", "LLAMA_BUILD_SERVER", "LLAMA_BUILD_APP", "LLAMA_OPENSSL",
           "LLAMA_BUILD_UI", "LLAMA_USE_PREBUILT_UI", "BUILD_SHARED_LIBS")  # fmt: skip
    options = ["-DCMAKE_BUILD_TYPE=Release", "-DGGML_NATIVE=ON", *(f"-D{name}=OFF" for name in off)]
    run(["cmake", "-S", str(source), "-B", str(work / "build"), *options])
    run(["cmake", "--build", str(work / "build"), "--target", "llama-quantize", "llama-imatrix", "-j", "2"])
    return binaries


def run(command: Sequence[str], needs: Sequence[str] = ()) -> None:
    """Run a command quietly; what it said is shown when it fails."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        hint = f"\nbuilding a source distribution may need: pip install {' '.join(needs)}" if needs else ""
        raise SystemExit(f"{' '.join(command)} ended with {done.returncode}:\n{done.stderr[-2000:]}{hint}")


def write_float_gguf(source: Path, out: Path) -> None:
    """The GGUF at ``source`` with every tensor decoded to float32; its metadata as it is."""
    from gguf import GGUFReader, GGUFValueType, GGUFWriter, LlamaFileType, quants

    reader = GGUFReader(source)
    fields = {name: field for name, field in reader.fields.items() if not name.startswith("GGUF.")}
    writer = GGUFWriter(out.with_suffix(".new"), fields.pop("general.architecture").contents())
    for name in ("general.file_type", "general.quantization_version"):
        fields.pop(name, None)
    for name, field in fields.items():
        inner = field.types[-1] if field.types[0] == GGUFValueType.ARRAY else None
        writer.add_key_value(name, field.contents(), field.types[0], sub_type=inner)
    writer.add_file_type(LlamaFileType.ALL_F32)
    for tensor in reader.tensors:
        values = np.asarray(quants.dequantize(tensor.data, tensor.tensor_type), np.float32)
        writer.add_tensor(tensor.name, values.reshape([int(n) for n in reversed(tensor.shape)]))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    out.with_suffix(".new").replace(out)


def theirs(original: Path, work: Path, binaries: Path, threads: int, chunks: int) -> dict[str, Path]:
    """What llama.cpp makes of the model: type → GGUF; ``chunks`` windows of the text for its importance matrix."""
    floats, matrix, text = work / "f32.gguf", work / "imatrix.gguf", work / "calibration.txt"
    if not floats.exists():
        write_float_gguf(original, floats)
    if not matrix.exists():
        text.write_text(calibration_text(), encoding="utf-8")
        new = work / "imatrix.new.gguf"
        run([str(binaries / "llama-imatrix"), "-m", str(floats), "-f", str(text), "-o", str(new), "-c", str(WINDOW),
             "-b", str(WINDOW), "-t", str(threads), "--no-ppl", "--chunks", str(chunks)])  # fmt: skip
        new.replace(matrix)
    made = {name: work / f"{name}.gguf" for name in TYPES}
    for name, path in made.items():
        if not path.exists():
            new = path.with_suffix(".new")
            run([str(binaries / "llama-quantize"), "--imatrix", str(matrix), str(floats), str(new), name, str(threads)])
            new.replace(path)
    return made


def ours(original: Path, sizes: dict[str, int], work: Path, method: str) -> dict[str, Path]:
    """What scrimp makes of it in as many bytes: type → directory."""
    made = {}
    for name, size_bytes in sizes.items():
        made[name] = work / f"scrimp-{name}-{method.replace('+', '-')}"
        scrimp.compress(original, made[name], size=size_bytes, method=method)
    return made


def measure(
    models: Sequence[Path], original: Path, text: Path, max_tokens: int, arithmetic: Arithmetic
) -> list[Evaluation]:
    """All in one run, against the original in float32."""
    with ExitStack() as stack:
        opened = [stack.enter_context(scrimp.open(path, context=WINDOW, arithmetic=arithmetic)) for path in models]
        return evaluate_all(opened, text, reference=original, context=WINDOW, max_tokens=max_tokens)


def row(name: str, size_bytes: int, found: Evaluation) -> dict[str, Any]:
    """One line of the table."""
    numbers = found.to_json()
    error = f"{numbers['kl_mean']:.4f} ± {numbers['kl_se']:.4f}"
    print(f"{name:<28}{size_bytes:>13,}{error:>20}{100 * numbers['same_top']:>9.1f} %{numbers['ppl']:>10.3f}")
    return {"name": name, "file_bytes": size_bytes, **numbers}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("text", type=Path, help="to measure on")
    parser.add_argument("--model", default="smollm2-135m", help="a GGUF, or the name of one in the catalogue")
    parser.add_argument("--work", type=Path, default=Path("llama-quantize"), help="what is made is kept here")
    parser.add_argument("--llama", type=Path, help="the directory of llama-quantize and llama-imatrix")
    parser.add_argument("--ours", help="compress in as many bytes with this method, beside them")
    parser.add_argument("--max-tokens", type=int, default=4096)
    parser.add_argument("--chunks", type=int, default=-1, help="windows of the importance matrix, all unless given")
    parser.add_argument("--threads", type=int, default=2, help="of llama.cpp's tools")
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    original = locate(options.model)
    made = theirs(original, options.work, options.llama or tools(options.work), options.threads, options.chunks)
    sizes = {name: path.stat().st_size for name, path in made.items()}
    print(f"{'':<28}{'bytes':>13}{'KL':>20}{'same top':>11}{'ppl':>10}")
    found = measure(list(made.values()), original, options.text, options.max_tokens, "f32")
    rows = [row(name, sizes[name], one) for name, one in zip(made, found, strict=True)]
    if options.ours:
        stores = ours(original, sizes, options.work, options.ours)
        for arithmetic, words in (("f32", ""), ("int8", ", as it runs")):
            found = measure(list(stores.values()), original, options.text, options.max_tokens, arithmetic)
            for name, path, one in zip(stores, stores.values(), found, strict=True):
                size_bytes = sum(file.stat().st_size for file in path.iterdir())
                rows.append(row(f"scrimp beside {name}{words}", size_bytes, one))
    print(json.dumps({"text": options.text.name, "llama.cpp": PACKAGE, "ours": options.ours, "rows": rows}))


if __name__ == "__main__":
    main()
