"""What a GPU changes in the making of a trainer, as far as a CPU can tell."""

import pytest
import torch

from distillation.tiny_training import another, trainer_for
from k2d_hf import create_student


@pytest.mark.parametrize("gpus", [1, 3])
def test_one_process_takes_one_gpu_and_says_so(gpus, tmp_path, caplog):
    from k2d_hf import K2DTrainingArguments
    from k2d_hf.distillation.construction import check_arguments

    arguments = K2DTrainingArguments(str(tmp_path), use_cpu=True, per_device_train_batch_size=2)
    arguments._n_gpu = gpus
    assert check_arguments(arguments).n_gpu == 1
    assert arguments.train_batch_size == 2
    assert [r.getMessage() for r in caplog.records if "torchrun --nproc_per_node 3" in r.getMessage()] == (
        [] if gpus == 1 else [r.getMessage() for r in caplog.records]
    )
    assert bool(caplog.records) == (gpus > 1)


@pytest.mark.parametrize("bf16", [False, True])
def test_models_that_only_help_are_loaded_in_the_number_format_of_training(
    bf16, tiny_whisper, tiny_whisper_dir, processor, chunks, tmp_path
):
    expected = torch.bfloat16 if bf16 else torch.float32
    student = create_student(tiny_whisper, 2)
    trainer = trainer_for(
        student, chunks, processor, tmp_path, bf16=bf16, max_steps=2, auxiliary_weight=0.5,
        teacher_model=str(tiny_whisper_dir), auxiliary_model=str(tiny_whisper_dir),
    )  # fmt: skip
    for model in (trainer.teacher, trainer.auxiliary):
        assert model.model.decoder.embed_tokens.weight.dtype == expected
    assert trainer.shares_encoder
    assert trainer.teacher.model.encoder is student.model.encoder
    assert {parameter.dtype for parameter in student.parameters()} == {torch.float32}
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert len(losses) == 2
    assert all(0 < loss < 100 for loss in losses)


def test_a_teacher_that_is_given_in_memory_stays_as_it_is(tiny_whisper, processor, chunks, tmp_path):
    teacher = another(tiny_whisper)
    trainer = trainer_for(
        create_student(tiny_whisper, 2), chunks, processor, tmp_path, bf16=True, teacher_model=teacher
    )
    assert trainer.teacher is teacher
    assert {parameter.dtype for parameter in teacher.parameters()} == {torch.float32}
