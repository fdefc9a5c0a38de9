"""Make the quickstart's auxiliary: a Whisper base with some layers, fewer neurons in those of the encoder, and LoRA.

    python recipes/lab/speech/make_speech.py lab-speech --split repair-lecture --split repair-hard --split repair-broad
    python recipes/quickstart/train_auxiliary.py lab-speech/repair.jsonl --output my-auxiliary
    python recipes/quickstart/train_auxiliary.py lab-speech/repair.jsonl --output my-smaller-auxiliary \\
        --encoder-layers 0 2 3 --begin recipes/quickstart/auxiliary

It learns from speech with its texts, made with other seeds than any lecture of the quickstart or of the laboratory.
What is written is the adapter, a folder that serves as a model; a run that was stopped goes on where it was. It may
begin with an adapter of these layers and more, whose matrices then need not be learned from nothing.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from peft import LoraConfig
from safetensors.torch import load_file
from torch import nn
from transformers import WhisperForConditionalGeneration, WhisperProcessor

from k2d_hf import K2DTrainer, K2DTrainingArguments, create_student
from k2d_hf.data.chunking import chunk_rows, pack_segments
from k2d_hf.data.references import read_references
from k2d_hf.distillation.batches.collator import K2DDataCollator
from k2d_hf.models import load_whisper, resolve_checkpoint
from k2d_hf.models.adapters import WEIGHTS, read_adapter, save_adapter
from k2d_hf.models.parts import keep_neurons, largest_neurons
from k2d_hf.pipeline.recipe import load_recipe

HERE = Path(__file__).parent
NAME = "k2d-quickstart-auxiliary"
ENCODER_LAYERS = [0, 2, 3, 4]  # of all four, those whose states are nearest to the whole encoder's
ENCODER_NEURONS = 896  # of 2,048 in each of these layers
HEARD = 16  # chunks that tell which neurons matter
DECODER_LAYERS = [0, 5]
RANK = 72
TARGET_MODULES = ["q_proj", "k_proj", "v_proj", "out_proj", "fc1", "fc2"]
MASKS = {  # of what the student alone hears: an hour of speech is soon known by heart
    "apply_spec_augment": True,
    "mask_time_prob": 0.1,
    "mask_time_length": 20,
    "mask_feature_prob": 0.1,
    "mask_feature_length": 8,
}
SETTINGS = {
    "encoder_weight": 2.0,  # a part of an encoder must first hear what the whole one hears
    "ce_weight": 1.0,
    "kl_weight": 0.25,
    "freeze_encoder": False,
    "freeze_embeddings": True,
    "timestamp_probability": 0.0,  # it transcribes chunks, and is asked for nothing else
    "previous_text_probability": 0.0,
    "per_device_train_batch_size": 2,
    "warmup_steps": 40,
    "lr_scheduler_type": "cosine",
    "bf16": torch.cuda.is_available() or torch.backends.cpu.get_cpu_capability() == "AVX512",
    "logging_steps": 20,
    "save_steps": 200,
    "save_total_limit": 1,
    "report_to": [],
}


def main() -> None:
    """Train, and write the adapter."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("speech", help="manifest of recordings with segments (start, end, text)")
    parser.add_argument("--work", default="runs/auxiliary", help="folder of the training's checkpoints")
    parser.add_argument("--output", type=Path, default=HERE / "auxiliary", help="folder of the adapter; empty or new")
    parser.add_argument("--epochs", type=float, default=12)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--encoder-layers", type=int, nargs="+", default=ENCODER_LAYERS, help="which are kept")
    parser.add_argument("--encoder-neurons", type=int, default=ENCODER_NEURONS, help="kept in each, those that matter")
    parser.add_argument("--rank", type=int, default=RANK, help="of the adapter's matrices")
    parser.add_argument("--dropout", type=float, default=0.05, help="of what the adapter hears")
    parser.add_argument("--begin", type=Path, metavar="ADAPTER", help="folder of an adapter to begin with")
    arguments = parser.parse_args()
    sources = load_recipe(HERE / "quickstart.yaml").teacher
    base = str(resolve_checkpoint(sources).path)
    chunks = chunks_with_texts(arguments.speech)
    whole, had = first_student(base, arguments.begin, arguments.encoder_layers)
    known = Path(arguments.work) / "encoder_neurons.json"  # another machine may round differently, and choose others
    if not known.exists():
        features = K2DDataCollator(WhisperProcessor.from_pretrained(base)).features(
            chunks[:: len(chunks) // HEARD or 1]
        )
        known.parent.mkdir(parents=True, exist_ok=True)
        known.write_text(json.dumps(neurons_that_matter(whole, features, arguments.encoder_neurons)))
    chosen = json.loads(known.read_text())
    neurons = [[of_base[index] for index in kept] for of_base, kept in zip(had, chosen, strict=True)]
    student = keep_neurons(create_student(base, DECODER_LAYERS, arguments.encoder_layers, language="zh"), neurons)
    student.config.update(MASKS)
    trainer = K2DTrainer(
        student,
        K2DTrainingArguments(
            arguments.work,
            num_train_epochs=arguments.epochs,
            learning_rate=arguments.learning_rate,
            use_cpu=not torch.cuda.is_available(),
            **SETTINGS,
        ),
        teacher_model=base,
        train_dataset=Dataset.from_list(chunks),
        peft_config=LoraConfig(
            r=arguments.rank,
            lora_alpha=2 * arguments.rank,
            lora_dropout=arguments.dropout,
            target_modules=TARGET_MODULES,
        ),
    )
    if arguments.begin:
        begin_with(trainer.model, arguments.begin, arguments.encoder_layers, chosen)
    trainer.train(resume_from_checkpoint=any(Path(arguments.work).glob("checkpoint-*")))
    save_adapter(
        trainer.model,
        arguments.output,
        sources=sources,
        encoder_layers=arguments.encoder_layers,
        decoder_layers=DECODER_LAYERS,
        encoder_neurons=neurons,
        name=NAME,
    )


def chunks_with_texts(manifest: str) -> list[dict[str, Any]]:
    """Rows of chunks of a manifest's recordings, of at most 30 s, whose labels are their texts."""
    return [
        row
        for recording, segments in read_references(manifest).items()
        for row in chunk_rows(recording, pack_segments(segments), language="zh")
    ]


def first_student(base: str, begin: Path | None, layers: list[int]) -> tuple[WhisperForConditionalGeneration, Any]:
    """What there is before neurons go: these encoder layers, and for each which neurons of the base it has."""
    if begin is None:
        whole = create_student(base, DECODER_LAYERS, layers)
        return whole, [range(whole.config.encoder_ffn_dim)] * len(layers)
    adapter = read_adapter(begin)
    places = [adapter.encoder_layers.index(layer) for layer in layers]
    whole = create_student(load_whisper(begin), len(DECODER_LAYERS), places)
    had = adapter.encoder_neurons
    return whole, [had[place] if had else range(whole.config.encoder_ffn_dim) for place in places]


@torch.no_grad()
def neurons_that_matter(
    student: WhisperForConditionalGeneration, features: torch.Tensor, count: int
) -> list[list[int]]:
    """For each encoder layer the neurons that add most to its output: root mean square of what they say times weight.

    Args:
        student: its encoder layers are looked at.
        features: of some chunks, [B, mel bins, frames].
        count: of neurons, in each layer.
    """
    layers = student.model.encoder.layers
    squares = [torch.zeros(student.config.encoder_ffn_dim) for _ in layers]

    def add(layer: int) -> Any:
        return lambda module, inputs: squares[layer].add_(inputs[0].square().mean((0, 1)))

    hooks = [layer.fc2.register_forward_pre_hook(add(place)) for place, layer in enumerate(layers)]
    student.eval()
    for chunk in features:
        student.model.encoder(chunk[None])
    for hook in hooks:
        hook.remove()
    added = [square.sqrt() * layer.fc2.weight.norm(dim=0) for square, layer in zip(squares, layers, strict=True)]
    return largest_neurons(added, count)


@torch.no_grad()
def begin_with(student: nn.Module, folder: Path, encoder_layers: list[int], neurons: list[list[int]]) -> None:
    """Copy an adapter's matrices into a student of some of its parts, whose rank may be larger.

    What the larger rank adds begins as LoRA does and changes nothing: the ratio of alpha to rank is always 2.

    Args:
        student: with LoRA.
        folder: of the adapter.
        encoder_layers: of the base, that the student has.
        neurons: for each of them those of the adapter's model that it has.
    """
    adapter = read_adapter(folder)
    places = {
        f"{part}.layers.{new}.": f"{part}.layers.{had.index(layer)}."
        for part, had, has in (
            ("encoder", adapter.encoder_layers, encoder_layers),
            ("decoder", adapter.decoder_layers, DECODER_LAYERS),
        )
        for new, layer in enumerate(has)
    }
    matrices = load_file(folder / WEIGHTS)
    for name, parameter in student.named_parameters():
        if ".lora_" in name:
            place = next(place for place in places if place in name)
            stored = matrices[name.replace(".default", "").replace(place, places[place])]
            if place.startswith("encoder"):
                kept = neurons[int(place.split(".")[2])]
                stored = stored[kept] if "fc1.lora_B" in name else stored[:, kept] if "fc2.lora_A" in name else stored
            rows, columns = stored.shape
            parameter[:rows, :columns] = stored


if __name__ == "__main__":
    main()
