"""Make what the quickstart's small student begins from: a Whisper base with two of its decoder layers, and LoRA.

    python recipes/lab/speech/make_speech.py lab-speech
    k2d run recipes/adapt/adapt.yaml
    python recipes/quickstart/train_start.py lab-speech/start.jsonl --teacher runs/adapt/student --output my-start
    python recipes/quickstart/train_start.py lab-speech/start.jsonl --teacher runs/adapt/student \\
        --begin my-start --output my-better-start

It learns from speech with its texts, none of it of the quickstart or of a set that anything is measured on. What is
written is the adapter, a folder that serves as a model and as `student.init`; a run that was stopped goes on where it
was.
"""

import argparse
from pathlib import Path

import torch
from datasets import Dataset, concatenate_datasets
from peft import LoraConfig, set_peft_model_state_dict
from safetensors.torch import load_file
from train_auxiliary import chunks_with_texts
from transformers import WhisperProcessor

from k2d_hf import K2DTrainer, K2DTrainingArguments, create_student
from k2d_hf.distillation.batches.collator import default_collator
from k2d_hf.distillation.targets.targets import add_soft_targets
from k2d_hf.models import resolve_checkpoint
from k2d_hf.models.adapters import WEIGHTS, save_adapter
from k2d_hf.pipeline.recipe import load_recipe

HERE = Path(__file__).parent
NAME = "k2d-quickstart-start"
DECODER_LAYERS = [0, 5]
RANK = 144
"""In float16 these matrices take 7.7 MB; twice the rank would be as many numbers as the layers themselves."""
TARGET_MODULES = r"model\.decoder\.layers\.\d\..*(q_proj|k_proj|v_proj|out_proj|fc1|fc2)"
SETTINGS = {
    "ce_weight": 1.0,
    "kl_weight": 0.5,
    "freeze_embeddings": True,
    "timestamp_probability": 0.8,  # as the quickstart's student will learn
    "previous_text_probability": 0.0,
    "full_windows": True,
    "per_device_train_batch_size": 8,
    "warmup_steps": 40,
    "lr_scheduler_type": "cosine",
    "bf16": torch.cuda.is_available() or torch.backends.cpu.get_cpu_capability() == "AVX512",
    "logging_steps": 20,
    "save_steps": 100,
    "save_total_limit": 1,
    "report_to": [],
}


def main() -> None:
    """Write soft targets, train, and write the adapter."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("speech", nargs="+", help="manifests of recordings with segments (start, end, text)")
    parser.add_argument("--teacher", required=True, help="whose distribution is learned beside the texts")
    parser.add_argument("--work", type=Path, default=Path("runs/start"), help="folder of targets and checkpoints")
    parser.add_argument("--output", type=Path, default=HERE / "start", help="folder of the adapter; empty or new")
    parser.add_argument("--epochs", type=float, default=12)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--augment", type=float, default=0.5, help="share of what is heard disturbed")
    parser.add_argument("--copies", type=int, default=2, help="disturbed copies of a chunk")
    parser.add_argument("--begin", type=Path, metavar="ADAPTER", help="folder of an adapter to begin with")
    arguments = parser.parse_args()
    sources = load_recipe(HERE / "quickstart.yaml").teacher
    base = resolve_checkpoint(sources).path
    student = create_student(base, DECODER_LAYERS, language="zh")
    training = K2DTrainingArguments(
        str(arguments.work / "training"),
        num_train_epochs=arguments.epochs,
        learning_rate=arguments.learning_rate,
        augment=arguments.augment,
        augment_copies=arguments.copies,
        encoder_states_dir=str(arguments.work / "encoder-states"),
        use_cpu=not torch.cuda.is_available(),
        **SETTINGS,
    )
    collator = default_collator(WhisperProcessor.from_pretrained(base), training, student)
    chunks = [
        add_soft_targets(
            Dataset.from_list(chunks_with_texts(manifest)),
            arguments.teacher,
            collator,
            kind="hidden",
            temperature=training.temperature,
            encoder_states_dir=training.encoder_states_dir,
            shards_dir=arguments.work / f"targets-{Path(manifest).stem}",
        )
        for manifest in arguments.speech
    ]
    trainer = K2DTrainer(
        student,
        training,
        train_dataset=concatenate_datasets(chunks),
        processing_class=collator.processor,
        peft_config=LoraConfig(
            r=RANK, lora_alpha=2 * RANK, lora_dropout=0.05, target_modules=TARGET_MODULES,
        ),
    )  # fmt: skip
    if arguments.begin:
        set_peft_model_state_dict(trainer.model, load_file(arguments.begin / WEIGHTS))
    trainer.train(resume_from_checkpoint=trainer.last_complete_checkpoint())
    save_adapter(
        trainer.model,
        arguments.output,
        sources=sources,
        encoder_layers=None,
        decoder_layers=DECODER_LAYERS,
        name=NAME,
    )


if __name__ == "__main__":
    main()
