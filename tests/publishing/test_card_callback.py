"""The card of a trainer: what it gathers while it trains, when it writes, and what it keeps to itself."""

import inspect
from functools import partial
from types import SimpleNamespace

import pytest
from datasets import Dataset
from distillation.tiny_training import trainer_for
from peft import LoraConfig
from transformers import GenerationConfig, Trainer, WhisperProcessor

from k2d_hf import create_student
from k2d_hf.distillation.targets.targets import add_soft_targets
from publishing.card_parts import headings, metadata, rows

SECRET, TOKEN = "他的病歷", "hf_abcdefghijklmnopqrstuvwxyz"


@pytest.fixture(scope="module")
def chunks(noise_file):
    """Four chunks with things that a card must not show; the third was dropped."""
    table = []
    for index in range(4):
        keep = index != 2
        row = {
            "recording": str(noise_file),
            "start": 6.0 * index,
            "duration": 6.0,
            "text": SECRET,
            "previous_text": None,
        }
        row |= {"segments": [{"start": 0.0, "end": 5.0, "text": SECRET}], "language": "zh", "keep": keep}
        row |= {"distance": 0.1 if keep else 0.9, "mer": 0.1, "drop_reason": None if keep else "distance > 0.40"}
        table.append(row)
    return Dataset.from_list(table)


@pytest.fixture
def made(tiny_whisper, chunks, processor, tmp_path):
    """A trainer for a fresh student, not trained yet."""

    def make(rows=chunks, **settings):
        settings = {"teacher_model": tiny_whisper, "max_steps": 2, **settings}
        return trainer_for(create_student(tiny_whisper, language="zh"), rows, processor, tmp_path / "out", **settings)

    return make


def card_of(trainer):
    with open(f"{trainer.args.output_dir}/README.md", encoding="utf-8") as file:
        return file.read()


def test_it_is_called_as_the_trainer_s_is(made):
    created, theirs = (
        inspect.signature(make) for make in (made().card.create, partial(Trainer.create_model_card, None))
    )
    assert [(p.name, p.default, p.kind) for p in created.parameters.values()] == [
        (p.name, p.default, p.kind) for p in theirs.parameters.values()
    ]


def test_the_card_says_what_the_language_token_began_as(made, tiny_whisper, chunks, processor, tmp_path):
    student = create_student(tiny_whisper, language="zh", language_mix={"zh": 0.75, "en": 0.25})
    trainer = trainer_for(student, chunks, processor, tmp_path / "mixed", teacher_model=tiny_whisper, max_steps=1)
    assert trainer.card.card_data().language_mix == {"zh": 0.75, "en": 0.25}
    assert made().card.card_data().language_mix is None


def test_a_trained_student_s_card(made, chunks, noise_file):
    trainer = made(
        eval_dataset={"dev": chunks.select([0])},
        eval_strategy="steps",
        eval_steps=1,
        learning_rate=1e-3,
        predict_with_generate=True,
        generation_max_length=8,
        run_name=SECRET,
        hub_token=TOKEN,
        hub_model_id="me/student",
    )
    trainer.train()
    trainer.create_model_card(license="mit", finetuned_from="openai/whisper-base", tags="talks")
    text = card_of(trainer)
    known, table = metadata(text), rows(text)
    assert known["license"] == "mit"
    assert known["base_model"] == "openai/whisper-base"
    assert known["language"] == ["zh"]
    assert known["tags"][-1] == "talks"
    (result,) = known["model-index"][0]["results"]
    assert result["dataset"]["name"] == "dev"
    last = [row["eval_dev_mer"] for row in trainer.state.log_history if "eval_dev_mer" in row][-1]
    assert [metric["value"] for metric in result["metrics"]] == [round(100 * last, 2)]
    assert table["speech labelled"] == "0.4 min, 4 chunks"
    assert table["speech kept"] == "0.3 min (75%), 3 chunks"
    assert table["dropped"] == "1 distance > 0.40"
    assert table["decoder layers"] == "2 of 4"
    assert table["encoder"] == "the teacher's, frozen"
    assert table["teacher's probabilities"] == "in memory while training"
    assert table["chunks in a step"] == "2"
    assert table["training"].startswith("2 steps, 1 epoch, 0.")
    for argument in (
        "learning_rate 0.001",
        "max_steps 2",
        "per_device_train_batch_size 2",
        "lr_scheduler_type constant",
    ):
        assert argument in table["training arguments"]
    assert text.count("\n| 1 | ") == text.count("\n| 2 | ") == 1
    assert 'from_pretrained("me/student")' in text
    for secret in (SECRET, TOKEN, noise_file.name, str(noise_file.parent), trainer.args.output_dir, "None"):
        assert secret not in text


def test_before_training_the_card_has_nothing_about_it(made):
    trainer = made()
    trainer.create_model_card()
    assert "training arguments" not in rows(card_of(trainer))
    assert "## Training" not in headings(card_of(trainer))


def test_a_training_that_went_on_has_its_whole_log_and_no_duration(made):
    made(max_steps=1, save_strategy="steps", save_steps=1).train()
    trainer = made(save_strategy="steps", save_steps=1)
    trainer.train(resume_from_checkpoint=True)
    trainer.create_model_card()
    assert "\n| 1 | " in card_of(trainer)
    assert "\n| 2 | " in card_of(trainer)
    assert rows(card_of(trainer))["training"] == "2 steps, 1 epoch on cpu"


def test_a_card_is_brought_up_to_date_before_a_push_but_not_one_of_somebody_else_s(made, tmp_path):
    trainer = made(hub_model_id="me/student")
    push = (trainer.args, trainer.state, trainer.control)
    trainer.callback_handler.on_push_begin(*push)
    assert "## Training" not in headings(card_of(trainer))
    trainer.train()
    trainer.create_model_card(license="mit")
    trainer.callback_handler.on_push_begin(*push)
    assert "## Training" in headings(card_of(trainer))
    assert metadata(card_of(trainer))["license"] == "mit"  # given once, it holds
    (tmp_path / "out" / "README.md").write_text("# By hand\n", encoding="utf-8")
    trainer.callback_handler.on_push_begin(*push)
    assert card_of(trainer) == "# By hand\n"


def test_only_the_first_process_writes(made, tmp_path, monkeypatch):
    trainer = made()
    monkeypatch.setattr(trainer, "is_world_process_zero", lambda: False)
    trainer.create_model_card()
    trainer.callback_handler.on_push_begin(trainer.args, trainer.state, trainer.control)
    assert not (tmp_path / "out" / "README.md").exists()


def test_adapters_are_saved_with_all_that_a_student_needs(made, tmp_path):
    trainer = made(peft_config=LoraConfig(r=2, target_modules=["q_proj"]), save_strategy="steps", save_steps=2)
    trainer.train()
    trainer.create_model_card()
    saved = tmp_path / "out" / "checkpoint-2"
    assert GenerationConfig.from_pretrained(saved).language == "zh"
    assert len(WhisperProcessor.from_pretrained(saved).tokenizer) == 51865
    assert metadata(card_of(trainer))["library_name"] == "peft"
    assert rows(card_of(trainer))["adapters"] == "LORA, rank 2"


def test_soft_targets_differ_from_a_teacher_in_memory(made, tiny_whisper, chunks):
    online = made()
    stored = made(
        add_soft_targets(chunks.select([0, 1]), tiny_whisper, online.data_collator, k=4, temperature=2.0),
        teacher_model=None,
    )
    alone = made(teacher_model=None, kl_weight=0.0)
    seen = []
    for trainer in (online, stored, alone):
        trainer.card.on_train_begin(trainer.args, trainer.state, trainer.control)
        facts = trainer.card.training_facts()
        seen.append((facts.soft_targets, facts.shares_encoder))
    assert seen == [(False, True), (True, None), (None, None)]


@pytest.mark.parametrize(("best", "mer"), [(1, 0.5), (None, 0.7)])
def test_figures_are_those_of_the_checkpoint_that_was_loaded(made, best, mer):
    card = made().card
    for step, rate in ((1, 0.5), (2, 0.7)):
        state = SimpleNamespace(global_step=step, best_global_step=best)
        card.on_evaluate(
            None, state, None, metrics={"eval_loss": 1.0, "eval_mer": rate, "eval_runtime": 9.0, "epoch": 1}
        )
    card.on_train_end(SimpleNamespace(load_best_model_at_end=best is not None), state, None)
    assert card.evaluated == {"": {"loss": 1.0, "mer": mer}}


def test_a_trainer_has_one_of_its_own(made):
    assert [type(callback).__name__ for callback in made().callback_handler.callbacks].count("ModelCardCallback") == 1
