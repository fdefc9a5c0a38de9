"""Training that is interrupted: which checkpoints are complete, and that it ends bit by bit as if nothing had happened."""

import json

import pytest
import torch
from full_disk import files_of_at_most

from distillation.tiny_training import trainer_for
from k2d_hf import K2DDataCollator, create_student
from k2d_hf.distillation.checkpoints import RECORD, complete_checkpoints, mark_complete
from k2d_hf.distillation.targets.targets import add_soft_targets
from k2d_hf.errors import K2DError

TIMES = ("_runtime", "_per_second")


def last_complete_checkpoint(folder):
    return next(iter(complete_checkpoints(folder)), None)


def checkpoint(folder, step):
    """A checkpoint with two files, not marked."""
    path = folder / f"checkpoint-{step}"
    (path / "optimizer_0").mkdir(parents=True)
    (path / "model.safetensors").write_bytes(b"weights")
    (path / "optimizer_0" / "__0_0.distcp").write_bytes(b"state")
    return path


CUTS = {
    "without a mark": lambda path: (path / RECORD).unlink(),
    "half a mark": lambda path: (path / RECORD).write_text('{"model.safet'),
    "a mark of another kind": lambda path: (path / RECORD).write_text("7"),
    "a file cut short": lambda path: (path / "model.safetensors").write_bytes(b"wei"),
    "a file missing": lambda path: (path / "optimizer_0" / "__0_0.distcp").unlink(),
}


@pytest.mark.parametrize("cut", CUTS)
def test_a_checkpoint_cut_short_is_passed_over_for_the_one_before_and_named(tmp_path, caplog, cut):
    for step in (8, 9, 10):
        mark_complete(checkpoint(tmp_path, step))
    assert last_complete_checkpoint(tmp_path) == tmp_path / "checkpoint-10"  # 10 comes after 9
    CUTS[cut](tmp_path / "checkpoint-10")
    assert last_complete_checkpoint(tmp_path) == tmp_path / "checkpoint-9"
    assert caplog.text.count("passed over") == 1
    assert f"{tmp_path / 'checkpoint-10'}: passed over, as a crash cut it short" in caplog.text


def test_without_a_whole_checkpoint_there_is_none(tmp_path):
    assert last_complete_checkpoint(tmp_path / "nowhere") is None
    checkpoint(tmp_path, 3)
    (tmp_path / "checkpoint-best").mkdir()
    assert last_complete_checkpoint(tmp_path) is None


def with_dropout(student):
    """The student with dropout everywhere, so that random numbers count."""
    for module in student.modules():
        if isinstance(getattr(module, "dropout", None), float):
            module.dropout = 0.1
    return student


@pytest.fixture
def build(tiny_whisper, chunks, processor, tmp_path):
    """A trainer that keeps a checkpoint of every third step, between two logs, where the draws differ by epoch."""

    def trainer(*, soft_targets=False, dropout=False, **settings):
        draws = {"timestamp_probability": 0.5, "previous_text_probability": 0.5}
        rows = chunks
        if soft_targets:
            rows = add_soft_targets(chunks, tiny_whisper, K2DDataCollator(processor, language="zh", **draws))
        student = create_student(tiny_whisper, language="zh")
        defaults = {"num_train_epochs": 3, "save_strategy": "steps", "save_steps": 3, "logging_steps": 2}
        defaults |= {"learning_rate": 1e-3, "lr_scheduler_type": "linear", "teacher_model": tiny_whisper, **draws}
        if soft_targets:
            defaults["teacher_model"] = None
        student = with_dropout(student) if dropout else student
        return trainer_for(student, rows, processor, tmp_path, **{**defaults, **settings})

    return trainer


def facts_of(trainer):
    """What the trainer has logged, without times."""
    return [{k: v for k, v in entry.items() if not k.endswith(TIMES)} for entry in trainer.state.log_history]


def assert_same(one, other):
    """Two trainers have the same weights bit for bit, and the same logs."""
    weights = [trainer.model.state_dict() for trainer in (one, other)]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert facts_of(one) == facts_of(other)


@pytest.mark.parametrize(
    ("settings", "cut"),
    [
        ({"dropout": True, "group_by_label_length": False, "gradient_accumulation_steps": 2, "save_steps": 1}, (5, 6)),
        ({"dropout": True, "keep_encoder_states": True, "soft_targets": True}, (6, 9, 12)),
        ({"dropout": True, "eval_strategy": "steps", "eval_steps": 2, "num_train_epochs": 1, "save_steps": 1}, (3, 4)),
    ],
    ids=["accumulated", "soft targets and states", "evaluated"],
)
def test_a_run_that_was_interrupted_ends_as_one_that_was_not(build, chunks, tmp_path, settings, cut):
    evaluated = {"eval_dataset": chunks.select([0])} if "eval_steps" in settings else {}
    whole = build(**settings, **evaluated)
    whole.train()
    for step in cut:
        path = tmp_path / f"checkpoint-{step}" / "optimizer.pt"
        path.write_bytes(path.read_bytes()[:1000])
    resumed = build(**settings, **evaluated)
    output = resumed.train(resume_from_checkpoint=True)
    assert resumed._resumed_from.name == f"checkpoint-{min(cut) - settings.get('save_steps', 3)}"
    assert_same(whole, resumed)
    assert output.training_loss == whole.state.log_history[-1]["train_loss"]
    assert last_complete_checkpoint(tmp_path).name == f"checkpoint-{max(cut)}"


def test_a_run_that_had_taken_its_last_step_takes_no_other(build):
    whole = build(max_steps=6)
    whole.train()
    resumed = build(max_steps=6)
    resumed.train(resume_from_checkpoint=True)
    assert resumed._resumed_from.name == "checkpoint-6"
    assert_same(whole, resumed)


def test_there_must_be_a_checkpoint_to_go_on_from(build):
    with pytest.raises(K2DError, match="no complete checkpoint to resume"):
        build().train(resume_from_checkpoint=True)


@pytest.mark.parametrize("room", [1_000_000, 8_000_000], ids=["for no weights", "for no optimizer"])
def test_a_full_disk_is_one_line_and_leaves_the_checkpoint_before(build, tmp_path, room):
    trainer = build(max_steps=3)
    trainer.train()
    trainer = build(max_steps=6, save_total_limit=1)
    with files_of_at_most(room), pytest.raises(K2DError) as error:
        trainer.train(resume_from_checkpoint=True)
    assert "\n" not in str(error.value)
    assert str(error.value).startswith(f"{tmp_path / 'checkpoint-6'}: no room on its disk")
    assert "it takes 20.7 MB, " in str(error.value)
    assert last_complete_checkpoint(tmp_path) == tmp_path / "checkpoint-3"
    assert not (tmp_path / "checkpoint-6").exists()


def test_sums_are_taken_up_whatever_the_number_of_processes(build, tmp_path):
    settings = {"logging_steps": 4, "lr_scheduler_type": "constant"}
    build(max_steps=3, **settings).train()
    sums = json.loads((tmp_path / "checkpoint-3" / "running_sums.json").read_text())
    assert sums["processes"][0][-2] > 0  # tokens since the last log
    sums["processes"] = [[value / 2 for value in sums["processes"][0]]] * 2
    sums["processes"][0][-1] = sums["processes"][1][-1] = sums["processes"][0][-1] * 2  # each has its own mean loss
    (tmp_path / "checkpoint-3" / "running_sums.json").write_text(json.dumps(sums))
    whole, resumed = build(max_steps=4, save_strategy="no", **settings), build(max_steps=4, **settings)
    whole.train()
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    assert resumed.state.log_history[0]["loss"] == pytest.approx(whole.state.log_history[0]["loss"])
