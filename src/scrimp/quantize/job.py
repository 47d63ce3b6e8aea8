"""A source and a wish → the plan, its calibration and its size, before anything is written."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from scrimp import models
from scrimp.calibrate import windows as calibration_windows
from scrimp.calibrate.kept import Kept, kept_at
from scrimp.calibrate.split import split as cut
from scrimp.calibrate.windows import Calibration
from scrimp.engine import pick_isa
from scrimp.engine.float_path import decoded_notes
from scrimp.errors import Refused, UsageError
from scrimp.models.sidecars import owner
from scrimp.progress import SILENT, Progress
from scrimp.quantize import plan as plans
from scrimp.quantize import survey
from scrimp.quantize.apply import calibrates, wants_gradients
from scrimp.quantize.around import split
from scrimp.quantize.budget import fit
from scrimp.quantize.predict import Prediction, predict
from scrimp.quantize.ranges import Ranges, ranges_bytes, ranges_wanted
from scrimp.quantize.report import CompressReport, TensorReport, record
from scrimp.quantize.sensitivity import probe_windows
from scrimp.quantize.spend import Spender
from scrimp.quantize.survey import Surveyed
from scrimp.quantize.walked import applicable, notes_of_walk
from scrimp.quantize.wish import Wish
from scrimp.sizes import format_bytes
from scrimp.sources import Source, open_source
from scrimp.sources.catalogue import cache_directory
from scrimp.sources.locate import locate
from scrimp.store import documents
from scrimp.store.layout import ALIGNMENT, Layout, lay_out, lay_out_coded
from scrimp.store.open import directory_bytes


@dataclass(frozen=True, slots=True)
class Job:
    """A source and the plan made for it, before anything is written. Close the source when done."""

    source: Source
    plan: plans.Plan
    limit_bytes: int | None  #: what the files must not exceed
    calibration: Calibration | None = None  #: where a method of the plan wants Statistics
    planned: tuple[str, ...] = ()  #: how the plan was found
    packed: bool = False  #: stored under the entropy coder: sizes of before are upper bounds
    expected_bytes: int | None = None  #: … where no survey of coded bytes was made
    ranges: Ranges | None = None  #: where activations get fixed scales

    @property
    def notes(self) -> list[str]:
        """What a reader of the report should know."""
        walk = [] if self.calibration is None else notes_of_walk(self.plan, self.source, self.calibration)
        fixed = [] if self.ranges is None else list(self.ranges.notes)
        if self.ranges is None and self.source.input_scales:
            fixed.append(
                "the source's fixed ranges of activations are left behind; --activations static finds new ones"
            )
        return [*notes_of(self.source, self.plan), *walk, *self.planned, *fixed]

    def predict(self) -> Prediction:
        expected = self.expected_bytes or file_bytes(self.source, self.plan, self.ranges)
        return predict(self.source, self.plan, expected, self.calibration)


def prepare(model: str | Path, wish: Wish, *, progress: Progress = SILENT) -> Job:
    """Open the model, make the plan and cut the text that calibrates its methods, where one of them wants that."""
    source = open_source(locate(str(model)), tokenizer=wish.tokenizer)
    try:
        limit: int | None = None
        planned: tuple[str, ...] = ()
        expected: int | None = None
        if not wish.keep and any(map(owner, source.tensors)):
            raise Refused(f"{source.path} has matrices with side-cars, which hold a part of their weights.",
                          hint="compress what it was made of, or repack it with --keep")  # fmt: skip
        if wish.keep:
            plan = plans.keep(source)
        elif wish.body is not None:
            plan = plans.make(source, wish.body, method_name=wish.method, embedding=wish.ends, rules=wish.parsed_rules)
        else:
            parameters = sum(int(np.prod(info.shape)) for info in source.tensors.values())
            limit = wish.size_bytes if wish.bits is None else int(wish.bits * parameters / 8)
            plan, planned, expected = _solve(source, wish, limit, progress)
        wished, plan = plan, applicable(plan, source)
        planned += without_sidecars(wished, plan)
        _check_gradients(source, plan)
        calibration, ranges = _calibration(source, plan, wish), ranges_wanted(source, wish)
        return Job(source, plan, limit, calibration, planned, wish.pack, expected, ranges)
    except BaseException:
        source.close()
        raise


def _solve(
    source: Source, wish: Wish, limit: int | None, progress: Progress
) -> tuple[plans.Plan, tuple[str, ...], int | None]:
    """A size in bytes, or a loss where there is none → the plan, how it was found, and its bytes where it is packed."""
    overhead = _Overhead(source)
    why = "no tokenizer" if source.tokenizer.kind == "none" else "an encoder" if models.encodes(source.config) else ""
    if why:
        if limit is None or wish.pack:
            verb = "is" if why == "an encoder" else "has"
            raise Refused(f"The source {verb} {why}, so that no loss can be measured.",
                          hint="use --size without --pack, or --format")  # fmt: skip
        plan = fit(
            source, limit, overhead.file_bytes, method_name=wish.method, embedding=wish.ends, rules=wish.parsed_rules
        )
        return plan, (f"{why}, so nothing was measured: one format for the whole body",), None
    surveyed = _survey(source, wish, progress) if wish.pack else None
    windows = probe_windows(source)
    remembered = _remembered(source, "sensitivities", Calibration(windows, ()).identity)
    spender = Spender(
        source, windows, overhead.file_bytes if surveyed is None else overhead.around_packed,
        method_name=wish.method, embedding=wish.ends, rules=wish.parsed_rules,
        remembered=remembered, surveyed=surveyed, progress=progress,
    )  # fmt: skip
    if limit is not None:
        spent = spender.within(limit)
    else:
        assert wish.kl is not None
        spent = spender.losing(wish.kl)
    return spent.plan, (spent.note,), None if surveyed is None else spent.file_bytes


def _survey(source: Source, wish: Wish, progress: Progress) -> dict[str, Surveyed]:
    if wish.method != "rtn":
        raise UsageError("A size or a loss with --pack is spent by ecsq at a rate for each matrix.",
                         hint="leave --method out, or choose a --format")  # fmt: skip
    calibration = _read_calibration(source, wish)
    shapes = {name: info.shape for name, info in source.tensors.items()}
    path = _remembered(source, "surveys", calibration.identity)
    found = survey.recall(path, shapes)
    if found is None:
        found = survey.survey(source, shapes, calibration, progress=progress)
        survey.remember(path, found)
    return found


def _remembered(source: Source, kind: str, identity: str) -> Path:
    """Where measurements of this very source are kept, made on the tokens that have this ``identity``."""
    shapes = {name: info.shape for name, info in source.tensors.items()}
    return cache_directory() / kind / f"{documents.fingerprint(source, plans.Plan(shapes, {}), identity)}.json"


def _calibration(source: Source, plan: plans.Plan, wish: Wish) -> Calibration | None:
    """The windows, where the plan wants any. Refused when there is no text that this network could read."""
    method = next((choice.method for choice in plan.choices.values() if calibrates(choice)), None)
    if method is None:
        unused = wish.calibrate_windows is not None or (wish.calibrate is not None and not wish.recover)
        if wish.range_rule is None and unused:
            raise UsageError("No method of this plan looks at a text, so there is nothing to calibrate.",
                             hint="leave --calibrate out, or choose such a method with --method")  # fmt: skip
        return None
    if source.tokenizer.kind == "none":
        raise Refused(f"The method {method} reads a text through the network, and this model has no tokenizer.",
                      hint="--tokenizer names one for llama2.c files; --method rtn needs none")  # fmt: skip
    return _read_calibration(source, wish)


def _check_gradients(source: Source, plan: plans.Plan) -> None:
    """ScrimpError where a method wants gradients, and there is no torch, or the network has none."""
    wanting = next((choice.method for choice in plan.choices.values() if wants_gradients(choice)), None)
    if wanting is not None:
        from scrimp.train.torch_extra import require_torch

        require_torch(f"The method {wanting}")
        from scrimp.train import fisher

        fisher.check(source, wanting)


def _read_calibration(source: Source, wish: Wish) -> Calibration:
    from scrimp.text.tokenizer import load

    parsed, _ = models.build(source.config)
    tokenizer = load(source.tokenizer, rows=source.config["vocab_size"])
    return calibration_windows.read(
        tokenizer, parsed.context, wish.calibrate, windows=wish.calibrate_windows, prefix=wish.calibrate_prefix
    )


def kept_statistics(job: Job, directory: Path | None) -> Kept | None:
    """Where Statistics that depend on nothing but the source and the calibration are kept, if there is room."""
    if directory is None or job.calibration is None or job.calibration.prefix != "original":
        return None
    shapes = {name: info.shape for name, info in job.source.tensors.items()}
    depends = f"{job.calibration.identity} {pick_isa()}"
    key = documents.fingerprint(job.source, plans.Plan(shapes, {}), depends)
    return kept_at(directory, key, cut(models.build(job.source.config)[1]))


def file_bytes(source: Source, plan: plans.Plan, ranges: Ranges | None = None) -> int:
    """Bytes the directory will take, or very little less: the record of the loss is of unknown length."""
    return _Overhead(source).file_bytes(plan) + (0 if ranges is None else ranges_bytes(source, plan, ranges))


def without_sidecars(wished: plans.Plan, plan: plans.Plan) -> tuple[str, ...]:
    """A line where a method with side-cars was wished for matrices that can't have them."""
    lost = [name for name, choice in wished.choices.items() if split(choice.method)[1] and name not in plan.beside]
    if not lost:
        return ()
    return (f"no side-car beside {', '.join(lost[:3])}{' …' if len(lost) > 3 else ''}, which other operations read, or "
            f"which makes the logits: {plan.choices[lost[0]].method} alone",)  # fmt: skip


def plan_layout(plan: plans.Plan) -> Layout:
    """Where every tensor of a plan will lie, side-cars included."""
    stored = plan.stored
    formats = {name: car.format for name, car in stored.items() if car.format is not None}
    return lay_out({name: car.shape for name, car in stored.items()}, formats)


class _Overhead:
    """The files beside the weights; the tokenizer's are written once to be measured."""

    def __init__(self, source: Source) -> None:
        self._source, self._tokenizer_bytes = source, 0
        if source.tokenizer.kind != "none":
            from scrimp.text.tokenizer import load

            with tempfile.TemporaryDirectory() as directory:
                load(source.tokenizer, rows=source.config["vocab_size"]).save(Path(directory))
                self._tokenizer_bytes = directory_bytes(Path(directory))

    def file_bytes(self, plan: plans.Plan) -> int:
        plan = applicable(plan, self._source)
        layout = plan_layout(plan)
        return layout.file_bytes + self._beside(plan, [part.name for parts in layout.parts.values() for part in parts])

    def around_packed(self, plan: plans.Plan) -> int:
        """All bytes but those of the matrices: header, gaps between tensors, vectors and side-cars, other files."""
        plan = applicable(plan, self._source)
        layout = plan_layout(plan)
        header = lay_out_coded(layout).header_bytes
        rest = sum(part.nbytes for name, parts in layout.parts.items() if name not in plan.choices for part in parts)
        return header + ALIGNMENT // 2 * len(layout.parts) + rest + self._beside(plan, list(layout.parts))

    def _beside(self, plan: plans.Plan, parts: list[str]) -> int:
        walked = 1 / 3 if any(map(calibrates, plan.choices.values())) else None
        tensors = tuple(TensorReport(name, c.format.name, c.method, 1 / 3, walked) for name, c in plan.choices.items())
        report = CompressReport("", 0, 0.0, 0.0, 0, tensors, tuple(notes_of(self._source, plan)), 0)
        checksums = dict.fromkeys(parts, "0" * 64)
        hashes = {"0" * 64: "0" * 64} if self._source.file_bytes <= documents.HASH_BYTES else None
        text = documents.scrimp_json(self._source, plan, hashes, checksums, report.notes, record(report))
        config = documents.config_json(self._source, plan)
        return (
            self._tokenizer_bytes
            + len(config.encode())
            + len(text.encode())
            + (_LOSS_BYTES if walked is None else _LOSS_BYTES + _WALK_BYTES)
        )


#: Room for the record of a loss, and the note on the plan, in ``scrimp.json``.
_LOSS_BYTES = 2400
#: Room for what is said of a calibration.
_WALK_BYTES = 2000


def notes_of(source: Source, plan: plans.Plan) -> list[str]:
    """What a reader should know: conversions of the source, ragged groups, a missing tokenizer, decoding to float32."""
    ragged = [
        name
        for name, choice in plan.choices.items()
        if plan.shapes[name][1] % choice.format.group(plan.shapes[name][1])
    ]
    found = list(source.notes)
    if ragged:
        found.append(f"the last group of a row is ragged: {len(ragged)} tensors such as {ragged[0]}")
    if source.tokenizer.kind == "none":
        found.append("the source has no tokenizer: only token ids can be run")
    if plan.beside:
        extra = plan_layout(plan).file_bytes - plan_layout(replace(plan, beside={})).file_bytes
        found.append(f"{len(plan.beside)} matrices have side-cars, {format_bytes(extra)} in all")
    shapes = plan.shapes
    return found + decoded_notes((c.format, (shapes[n][0], shapes[n][1])) for n, c in plan.choices.items())
