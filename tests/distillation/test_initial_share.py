"""A share of the weights that a student began with: the mean of before and after, whatever is trained."""

import copy

import pytest
import torch
from peft import LoraConfig

from distillation.tiny_training import another, trainer_for
from k2d_hf import K2DError, create_student
from k2d_hf.models.shapes import WhisperShape
from k2d_hf.pipeline.preflight import check_adapters

LORA = {"target_modules": ["q_proj", "fc1"], "r": 4}


@pytest.fixture
def train(tiny_whisper, chunks, processor, tmp_path):
    """Train the same student in four steps; give its weights, adapters merged, and the trainer."""
    student = create_student(tiny_whisper, language="zh")

    def run(*, resume=None, **settings):
        settings = {"teacher_model": another(tiny_whisper), "max_steps": 4, "learning_rate": 1e-2, **settings}
        trainer = trainer_for(copy.deepcopy(student), chunks, processor, tmp_path, **settings)
        trainer.train(resume_from_checkpoint=resume)
        model = copy.deepcopy(trainer.model)
        return (model.merge_and_unload() if hasattr(model, "merge_and_unload") else model).state_dict(), trainer

    run.before = student.state_dict()
    return run


@pytest.mark.parametrize("share", [0.25, 0.5, 1.0])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"freeze_embeddings": True},
        {"freeze_encoder": False},
        {"peft_config": LoraConfig(**LORA)},
        {"peft_config": LoraConfig(**LORA, use_rslora=True, modules_to_save=["layer_norm"], bias="all")},
    ],
    ids=["weights", "frozen embeddings", "encoder too", "adapters", "adapters and biases"],
)
def test_the_student_is_the_mean_of_what_it_was_before_and_after(train, settings, share):
    trained, _ = train(**settings)
    mixed, _ = train(initial_share=share, **settings)
    moved = 0.0
    for name, before in train.before.items():
        torch.testing.assert_close(mixed[name], torch.lerp(trained[name], before, share), rtol=1e-4, atol=1e-6)
        moved = max(moved, float((trained[name] - before).abs().max()))
    assert moved > 1e-3


def test_checkpoints_have_what_training_made_and_a_resumed_run_ends_alike(train):
    saving = {"save_strategy": "steps", "save_steps": 2}
    whole, trainer = train(initial_share=0.5, **saving)
    first = sorted(trainer.last_complete_checkpoint().parent.glob("checkpoint-*"))[0]
    again, _ = train(initial_share=0.5, resume=str(first), **saving)
    last, _ = train(initial_share=0.5, resume=str(first.with_name("checkpoint-4")), **saving)
    for name, weights in whole.items():
        assert torch.equal(weights, again[name])
        assert torch.equal(weights, last[name])


def test_adapters_that_do_not_scale_are_refused(train):
    with pytest.raises(K2DError, match="^initial_share: not with use_dora"):
        train(initial_share=0.5, peft_config=LoraConfig(**LORA, use_dora=True))
    with pytest.raises(K2DError, match="^initial_share: adapters must begin as nothing"):
        train(initial_share=0.5, peft_config=LoraConfig(**LORA, init_lora_weights=False))


def test_a_recipe_with_such_adapters_stops_before_any_work():
    shape = WhisperShape(d_model=32, encoder_layers=2, decoder_layers=2)
    with pytest.raises(K2DError, match="^distil.peft: initial_share: not with use_dora"):
        check_adapters({"initial_share": 0.5, "peft": {"use_dora": True}}, shape, "distil.")
    check_adapters({"initial_share": 0.5, "peft": {"r": 4}}, shape, "distil.")
    check_adapters({"peft": {"use_dora": True}}, shape, "distil.")
