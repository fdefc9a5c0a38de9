"""All that waits for a GPU, in one command: under nine minutes on one H100 or H200, a JSON line for each result.

Each part runs in a process of its own: one that runs out of memory or of time, or finds a package missing, gives a line
with its `error`, and the next one goes on. Nothing is downloaded: weights are random, at large-v2's geometry, and the
tokenizer writes bytes. First comes what is there and what is missing, then the parts, last the ratios.

    python benchmarks/on_gpu.py                        # on a GPU
    python benchmarks/on_gpu.py --tiny --device cpu    # everything in small, to see that it runs
    python benchmarks/on_gpu.py --only training loss_blockwise
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

NEEDED = ("torch", "transformers", "accelerate", "datasets", "soundfile", "numpy")
CONTESTANTS = {"faster_whisper": "faster-whisper", "liger_kernel": "liger-kernel", "triton": "triton"}
MOST_SECONDS = 520.0  # of all parts: what is left of nine minutes is for starting and ending
STEP_SIDES = ("reference", "exact", "hidden", "hidden_cached")
LOSSES = ("plain", "plain_compiled", "blockwise", "blockwise_1024", "liger_ce", "liger_jsd")
WORDS, MINUTES = 3, 0.6  # of a label's segment, and of each recording: chunks are 28 s long


def sizes(*, tiny: bool, device: str) -> argparse.Namespace:
    """What is measured, and how large."""
    common = {"device": device, "tiny": tiny, "dtype": "bfloat16", "decoder_layers": 2, "k": 32, "language": "zh"}
    if tiny:
        own = {
            "geometry": "smallest", "trained": "smallest", "batches": (1,), "tokens": 6, "rounds": 1, "steps": 3,
            "batch": 2, "minutes": 0.1, "recordings": 1, "workers": 0, "compile": "eager", "seconds": 60.0,
            "loss_shape": (8, 16, 500),
            "written": 4, "written_batches": (1,), "freeze_embeddings": False, "decoder_layers": 1,
        }  # fmt: skip
    else:
        own = {
            "geometry": "large-v2", "trained": "small", "batches": (16, 32), "tokens": 120, "rounds": 7, "steps": 60,
            "batch": 16, "minutes": 2.0, "recordings": 3, "workers": 8, "compile": "inductor",
            "loss_shape": (1920, 1280, 51865),
            "seconds": 120.0, "written": 120, "written_batches": (1, 16), "freeze_embeddings": False,
        }  # fmt: skip
    return argparse.Namespace(**{**common, **own})


def wait_for(device: str) -> Callable[[], None]:
    """What waits until the device is idle."""
    import torch

    return torch.cuda.synchronize if device == "cuda" else lambda: None


def memory_of(device: str) -> dict[str, float]:
    """The most memory so far, in GiB: the GPU's, or this process's."""
    import measure
    import torch

    peak = torch.cuda.max_memory_allocated() / measure.GIB if device == "cuda" else measure.peak_memory()
    return {"peak_gib": round(peak, 3)}


def hardware(plan: argparse.Namespace) -> dict[str, Any]:
    """What it runs on."""
    import torch

    if plan.device == "cpu":
        return {"threads": torch.get_num_threads()}
    about = torch.cuda.get_device_properties(0)
    return {"gpu": about.name, "gib": round(about.total_memory / 2**30, 1), "cuda": torch.version.cuda}


def exactness(plan: argparse.Namespace) -> dict[str, Any]:
    """The blockwise loss against the plain formula in float64, both on the device."""
    import loss_exactness

    tokens, width, vocabulary = plan.loss_shape
    return loss_exactness.distances(plan.device, tokens=min(tokens, 480), width=width, vocabulary=vocabulary)


def training(plan: argparse.Namespace) -> dict[str, Any]:
    """A short training from chunks to loss, in bf16; its loss must fall."""
    import synthetic
    import training_memory
    from datasets import Dataset
    from training_step import whisper

    from k2d_hf import K2DTrainer, K2DTrainingArguments, create_student

    teacher, processor = whisper(plan.trained, plan.device), synthetic.processor()
    with tempfile.TemporaryDirectory() as folder:
        sound = training_memory.write_sound(Path(folder), MINUTES)
        rows = training_memory.chunk_rows(sound, plan.batch * 4, WORDS, MINUTES)
        arguments = K2DTrainingArguments(
            folder, max_steps=plan.steps, per_device_train_batch_size=plan.batch, learning_rate=5e-4, bf16=True,
            dataloader_num_workers=plan.workers, lr_scheduler_type="constant", use_cpu=plan.device == "cpu",
            save_strategy="no", report_to="none", disable_tqdm=True, logging_steps=max(1, plan.steps // 6),
        )  # fmt: skip
        trainer = K2DTrainer(
            create_student(teacher, plan.decoder_layers, tokenizer=processor.tokenizer),
            arguments,
            teacher_model=teacher,
            train_dataset=Dataset.from_list(list(rows)),
            processing_class=processor,
        )
        started = time.perf_counter()
        trainer.train()
        seconds = time.perf_counter() - started
    losses = [round(entry["loss"], 4) for entry in trainer.state.log_history if "loss" in entry]
    if not losses[-1] < losses[0]:
        raise RuntimeError(f"the loss did not fall: {losses}")
    device = str(next(trainer.model.parameters()).device)
    return {"losses": losses, "seconds": round(seconds, 2), "trained_on": device, **memory_of(plan.device)}


def step(plan: argparse.Namespace, *, side: str, batch: int, backend: str | None = None) -> dict[str, Any]:
    """Seconds and memory of one side of `training_step.py`."""
    import measure
    import training_step

    settings = argparse.Namespace(**{**vars(plan), "batch": batch, "compile": backend})
    runs = {side: training_step.step_of(side, settings)}
    taken = measure.in_turns(runs, rounds=plan.rounds, warmup=2 * (not plan.tiny), synchronise=wait_for(plan.device))[
        side
    ]
    return {"batch": batch, "seconds": measure.median(taken), **memory_of(plan.device)}


def loss(plan: argparse.Namespace, *, kind: str) -> dict[str, Any]:
    """Loss and gradients by hidden states and embedding alone, in bf16, of one contestant."""
    import measure
    import torch

    tokens, width, vocabulary = plan.loss_shape
    tensors = [torch.randn(size, width, device=plan.device) for size in (tokens, vocabulary, tokens, vocabulary)]
    hidden, embedding, teacher, of_teacher = (tensor.bfloat16() * width**-0.25 for tensor in tensors)
    trained = [hidden.requires_grad_(), embedding.requires_grad_()]
    labels = torch.randint(0, vocabulary, (tokens,), device=plan.device)
    run = contestant(kind, trained, (teacher, of_teacher), labels, plan.compile)
    values: list[float] = []

    def whole() -> None:
        total = run()
        torch.autograd.grad(total, trained)
        values.append(float(total.detach()))

    taken = measure.in_turns(
        {kind: whole}, rounds=plan.rounds, warmup=2 * (not plan.tiny), synchronise=wait_for(plan.device)
    )
    return {"tokens": tokens, "loss": values[-1], "seconds": measure.median(taken[kind]), **memory_of(plan.device)}


def contestant(kind: str, student: list[Any], teacher: tuple[Any, Any], labels: Any, backend: str) -> Callable[[], Any]:
    """One way to form the loss, summed over tokens; Liger's are CE alone, and KL(teacher || student) alone."""
    import torch
    from loss_exactness import of_logits

    from k2d_hf.distillation.loss.losses import BLOCK_TOKENS, Head, LossWeights, distillation_loss

    if kind == "liger_ce":
        from liger_kernel.transformers import LigerFusedLinearCrossEntropyLoss

        fused = LigerFusedLinearCrossEntropyLoss(reduction="sum")
        return lambda: fused(student[1], student[0], labels)
    if kind == "liger_jsd":
        from liger_kernel.transformers import LigerFusedLinearJSD

        divergence = LigerFusedLinearJSD(jsd_beta=0.0, temperature=LossWeights().temperature)  # 0: KL, as a mean
        return lambda: len(labels) * divergence(student[0], student[1], teacher[0], teacher[1], labels)
    if kind.startswith("blockwise"):
        block = int(kind.partition("_")[2] or BLOCK_TOKENS)
        return lambda: distillation_loss(Head(*student), labels, teacher=Head(*teacher), block_tokens=block).total

    def formula(hidden: Any, embedding: Any, helping: Any, of_helping: Any, ids: Any) -> Any:
        # products in bf16, what follows in float32, as ours has it
        return of_logits((hidden @ embedding.T).float(), (helping @ of_helping.T).float(), ids, LossWeights())

    whole = torch.compile(formula, backend=backend) if kind == "plain_compiled" else formula
    return lambda: whole(*student, *teacher, labels)


def writing(plan: argparse.Namespace) -> dict[str, Any]:
    """Tokens of a student with two decoder layers and of its teacher, at equal numbers, in float16."""
    import generation

    dtype = "float16" if plan.device == "cuda" else "float32"
    settings = argparse.Namespace(**{**vars(plan), "dtype": dtype, "tokens": plan.written, "rounds": 2 - plan.tiny})
    models = generation.sides(settings)
    return {f"batch_{batch}": generation.figures(models, batch, settings) for batch in plan.written_batches}


def labelling(plan: argparse.Namespace, *, engine: str) -> dict[str, Any]:
    """Sound to chunks with a large model in float16, greedily, every window once."""
    import synthetic
    import training_memory
    from datasets import Dataset
    from training_step import whisper

    from k2d_hf import label_recordings
    from k2d_hf.models.generation import complete_generation_config
    from k2d_hf.transcription.engines import open_transcriber
    from k2d_hf.transcription.transcribers import DecodingOptions

    processor = synthetic.processor()
    model = complete_generation_config(whisper(plan.geometry, plan.device), lambda: processor.tokenizer)
    dtype = "float16" if plan.device == "cuda" else "float32"
    options = DecodingOptions(language="zh", beam_size=1, temperatures=(0.0,), device=plan.device, dtype=dtype)
    with tempfile.TemporaryDirectory() as folder:
        os.environ["K2D_CACHE"] = f"{folder}/cache"  # of the converted model, which nobody needs again
        model.half().save_pretrained(f"{folder}/model")
        processor.save_pretrained(f"{folder}/model")
        del model
        sound = training_memory.write_sound(Path(folder), plan.minutes)[: plan.recordings]
        transcriber = open_transcriber(f"{folder}/model", options, engine=engine)
        started = time.perf_counter()
        chunks = label_recordings(Dataset.from_dict({"recording": list(sound)}), transcriber)
        seconds = time.perf_counter() - started
        heard = 60 * plan.minutes * len(sound)
        told = vars(transcriber.runtime) if hasattr(transcriber, "runtime") else {}
    return {"audio_seconds": heard, "seconds": round(seconds, 2), "chunks": len(chunks), "runtime": told}


def parts_of(plan: argparse.Namespace) -> Iterator[tuple[str, Callable[[argparse.Namespace], dict[str, Any]]]]:
    """Name and work of each part, the most wanted first."""
    yield "hardware", hardware
    yield "exactness", exactness
    yield "training", training
    for batch in plan.batches:
        for side in STEP_SIDES:
            yield f"step_{side}_{batch}", partial(step, side=side, batch=batch)
    yield "generation", writing
    yield "labelling_transformers", partial(labelling, engine="transformers")
    for kind in LOSSES:
        yield f"loss_{kind}", partial(loss, kind=kind)
    batch = plan.batches[0]
    yield f"step_exact_compiled_{batch}", partial(step, side="exact", batch=batch, backend=plan.compile)
    yield "labelling_faster_whisper", partial(labelling, engine="faster-whisper")


def alone(work: Callable[[argparse.Namespace], dict[str, Any]], plan: argparse.Namespace, limit: float) -> dict:
    """What a part found, in a process of its own; `error` where it failed, died or took too long."""
    if limit < 1:
        return {"error": "no time was left for it"}
    context = multiprocessing.get_context("fork")  # what is imported stays so; this process never opens the device
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(work, plan, there))
    process.start()
    there.close()
    try:
        found = here.recv() if here.poll(limit) else {"error": f"not done in {limit:.0f} s"}
    except EOFError:
        process.join()
        found = {"error": f"its process ended with {process.exitcode}"}
    process.join(1)
    if process.pid and process.is_alive():
        os.killpg(process.pid, signal.SIGKILL)  # with the workers that it may have
        process.join()
    return found


def _run(work: Callable[[argparse.Namespace], dict[str, Any]], plan: argparse.Namespace, there: Any) -> None:
    os.setsid()
    os.dup2(2, 1)  # results are the only lines on standard output
    try:
        found = work(plan)
    except Exception as error:
        found = {"error": f"{type(error).__name__}: {error}".strip().splitlines()[0][:300]}
    there.send(found)
    there.close()
    sys.stderr.flush()
    os._exit(0)  # a library that cannot end must not hold up the next part


def ratios(found: Mapping[str, dict[str, Any]], plan: argparse.Namespace) -> dict[str, Any]:
    """Each side of the step against the reference of the same batch, where both are there."""
    told: dict[str, Any] = {}
    for batch in plan.batches:
        reference = found.get(f"step_reference_{batch}", {})
        for side in (*STEP_SIDES[1:], "exact_compiled"):
            ours = found.get(f"step_{side}_{batch}", {})
            if "seconds" in reference and "seconds" in ours:
                faster = round(reference["seconds"] / ours["seconds"], 2)
                share = round(ours["peak_gib"] / reference["peak_gib"], 3)
                told[f"{side}_{batch}"] = {"times_faster": faster, "share_of_memory": share}
    return told


def say(part: str, figures: Mapping[str, Any]) -> None:
    """One line of JSON, at once."""
    print(json.dumps({"part": part, **figures}, ensure_ascii=False), flush=True)


def packages() -> dict[str, Any]:
    """What is installed, and what is missing."""
    names = {**{name: name for name in NEEDED}, **CONTESTANTS}
    there = {module: name for module, name in names.items() if importlib.util.find_spec(module)}
    missing = [name for module, name in names.items() if module not in there]
    return {"versions": {name: version(name) for name in there.values()}, "missing": missing}


def main() -> None:
    """Run all parts, or some; print as they end."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=["cpu", "cuda"])
    parser.add_argument("--tiny", action="store_true", help="everything in small")
    parser.add_argument("--only", nargs="+", metavar="PART", help="parts to run")
    options = parser.parse_args()
    started = time.monotonic()
    os.environ.update(HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false", PYTORCH_NVML_BASED_CUDA_CHECK="1")
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # the package need not be installed
    plan = sizes(tiny=options.tiny, device=options.device)
    say("packages", packages())
    try:
        import synthetic
        import training_step  # noqa: F401 - once for all parts, as the processor is made

        synthetic.processor()
    except ImportError as error:
        say("imports", {"error": f"{type(error).__name__}: {error}"})
    found: dict[str, dict[str, Any]] = {}
    for name, work in parts_of(plan):
        if options.only and name not in options.only:
            continue
        begun = time.monotonic()
        found[name] = alone(work, plan, min(plan.seconds, MOST_SECONDS - (begun - started)))
        say(name, {**found[name], "took": round(time.monotonic() - begun, 1)})
    say("ratios", ratios(found, plan))
    failed = [name for name, figures in found.items() if "error" in figures]
    say("done", {"parts": len(found), "failed": failed, "took": round(time.monotonic() - started, 1)})


if __name__ == "__main__":
    main()
