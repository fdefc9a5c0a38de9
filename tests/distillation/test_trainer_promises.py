"""What users of transformers' Trainer take for granted: it works here as there, or is refused in one line at once."""

import copy
import json
import shutil

import numpy as np
import pytest
import torch
from peft import LoraConfig
from transformers import Seq2SeqTrainingArguments, TrainingArguments, WhisperForConditionalGeneration, pipeline

from distillation.tiny_training import trainer_for
from k2d_hf import K2DDataCollator, K2DTrainer, K2DTrainingArguments, create_student
from k2d_hf.audio.reader import read_audio
from k2d_hf.distillation.measures import GREATER_IS_BETTER
from k2d_hf.distillation.targets.targets import add_soft_targets
from k2d_hf.errors import K2DError
from k2d_hf.models import load_whisper

SGD = {"optim": "sgd", "learning_rate": 0.1, "max_grad_norm": 0.0}
WRITES = {"predict_with_generate": True, "generation_max_length": 12, "per_device_eval_batch_size": 2}
LORA = LoraConfig(r=2, target_modules=["q_proj", "v_proj"])


@pytest.fixture
def build(tiny_whisper, chunks, processor, tmp_path):
    """A trainer of a fresh student, which has not trained."""

    def trainer(rows=None, student=None, **settings):
        settings = {"teacher_model": tiny_whisper, "max_steps": 1, **settings}
        student = student or create_student(tiny_whisper, language="zh")
        return trainer_for(student, chunks if rows is None else rows, processor, tmp_path, **settings)

    return trainer


@pytest.fixture(scope="module")
def with_targets(tiny_whisper_dir, chunks, processor):
    return add_soft_targets(chunks, str(tiny_whisper_dir), K2DDataCollator(processor, language="zh"))


@pytest.mark.parametrize("name", [*GREATER_IS_BETTER, "eval_mer", "eval_dev_mer", "eval_dev_auxiliary_kl"])
def test_the_best_checkpoint_is_chosen_in_the_direction_of_its_figure(name, tmp_path):
    args = K2DTrainingArguments(str(tmp_path), metric_for_best_model=name, predict_with_generate=True)
    assert args.greater_is_better == name.endswith("agreement")


def test_a_direction_that_is_given_and_a_figure_of_ones_own_are_left_alone(tmp_path):
    assert K2DTrainingArguments(str(tmp_path), metric_for_best_model="mer", greater_is_better=True).greater_is_better
    assert K2DTrainingArguments(str(tmp_path), metric_for_best_model="my_score").greater_is_better


def test_the_checkpoint_of_least_mer_is_loaded(build, chunks):
    settings = {"eval_strategy": "steps", "save_strategy": "steps", "eval_steps": 1, "save_steps": 1, "max_steps": 4}
    trainer = build(
        eval_dataset=chunks, metric_for_best_model="mer", load_best_model_at_end=True, learning_rate=0.02,
        **WRITES, **settings,
    )  # fmt: skip
    trainer.train()
    rates = {entry["step"]: entry["eval_mer"] for entry in trainer.state.log_history if "eval_mer" in entry}
    assert len(set(rates.values())) > 1
    assert rates[trainer.state.best_global_step] == min(rates.values())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"metric_for_best_model": "mer"}, "metric_for_best_model 'mer' needs predict_with_generate"),
        ({"metric_for_best_model": "eval_dev_mer"}, "metric_for_best_model 'eval_dev_mer' needs predict_with_generate"),
        ({"compute_metrics": lambda prediction: {}}, "compute_metrics is never called without predict_with_generate"),
        ({"train_sampling_strategy": "batch_rebalance"}, "train_sampling_strategy 'batch_rebalance': the chunks have"),
    ],
)
def test_what_cannot_be_is_refused_at_construction(build, settings, message):
    with pytest.raises(K2DError, match=message) as caught:
        build(**settings)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("kind", [Seq2SeqTrainingArguments, TrainingArguments, dict])
def test_the_arguments_of_another_trainer_are_refused(tiny_whisper_dir, chunks, tmp_path, kind):
    args = kind(output_dir=str(tmp_path))
    with pytest.raises(K2DError, match=f"args is a {kind.__name__}: give a K2DTrainingArguments"):
        K2DTrainer(str(tiny_whisper_dir), args, train_dataset=chunks)


@pytest.mark.parametrize("part", ["feature_extractor", "tokenizer"])
def test_half_a_processor_is_refused(tiny_whisper_dir, chunks, processor, tmp_path, part):
    half = getattr(processor, part)
    with pytest.raises(K2DError, match=f"processing_class is a {type(half).__name__}: give a WhisperProcessor"):
        K2DTrainer(
            str(tiny_whisper_dir), K2DTrainingArguments(str(tmp_path)), train_dataset=chunks, processing_class=half
        )


def test_a_student_or_what_makes_one_and_not_both(tiny_whisper, chunks, tmp_path):
    for given in ({}, {"model": tiny_whisper, "model_init": lambda: tiny_whisper}):
        with pytest.raises(K2DError, match="give either model, a student or its checkpoint, or model_init"):
            K2DTrainer(args=K2DTrainingArguments(str(tmp_path)), train_dataset=chunks, **given)


@pytest.mark.parametrize("form", ["torch", "numpy", "pandas"])
@pytest.mark.parametrize("stored", [False, True], ids=["teacher", "stored"])
def test_rows_in_the_format_of_another_library_train_alike(build, chunks, with_targets, form, stored):
    rows = with_targets if stored else chunks
    settings = {**SGD, **({"teacher_model": None} if stored else {})}
    losses = []
    for given in (rows, rows.with_format(form)):
        trainer = build(given, eval_dataset=given, **settings)
        trainer.train()
        losses.append([trainer.state.log_history[0]["loss"], trainer.evaluate(given)["eval_loss"]])
    assert losses[0] == losses[1]


def test_the_mixed_error_rate_is_the_same_however_batches_are_given(build, chunks):
    rates = []
    for settings in ({}, {"eval_do_concat_batches": False}, {"batch_eval_metrics": True}):
        trainer = build(eval_dataset=chunks.select(range(5)), **WRITES, **settings)
        rates.append([trainer.evaluate()["eval_mer"] for _ in range(2)])
    assert rates == [[rates[0][0]] * 2] * 3


def test_chunks_given_later_are_looked_at_as_those_given_at_construction(build, chunks, with_targets):
    dropped = [{**chunks[0], "keep": False}, {**chunks[1], "text": "long " * 600}]
    rows = type(chunks).from_list([*chunks.select(range(3)), *dropped])
    trainer = build(eval_dataset=rows)
    assert len(trainer.eval_dataset) == 3
    expected = trainer.evaluate()["eval_loss"]
    assert trainer.evaluate(rows)["eval_loss"] == expected
    assert trainer.evaluate({"later": rows})["eval_later_loss"] == expected
    stored = build(with_targets, teacher_model=None, eval_dataset=with_targets)
    expected = stored.evaluate()["eval_loss"]
    assert stored.evaluate(with_targets)["eval_loss"] == expected
    assert stored.predict(with_targets).metrics["test_loss"] == expected
    with pytest.raises(K2DError, match="no soft targets of the teacher"):
        stored.evaluate(chunks)


def test_predictions_are_those_of_the_rows_in_order(build, chunks):
    rows = type(chunks).from_list([{**row, "keep": index != 1} for index, row in enumerate(chunks)])
    output = build(**WRITES).predict(rows)
    assert len(output.predictions) == len(rows)


def test_a_student_is_made_anew_for_each_training(build, tiny_whisper, chunks, processor, tmp_path):
    made = []

    def student():
        made.append(create_student(tiny_whisper, language="zh"))
        return made[-1]

    args = K2DTrainingArguments(
        str(tmp_path), use_cpu=True, report_to="none", disable_tqdm=True, save_strategy="no", max_steps=2,
        logging_steps=1, keep_encoder_states=False, per_device_train_batch_size=2,
    )  # fmt: skip
    trainer = K2DTrainer(
        model_init=student, args=args, teacher_model=tiny_whisper, train_dataset=chunks, processing_class=processor
    )
    losses = []
    for _ in range(2):
        trainer.train()
        losses.append([entry["loss"] for entry in trainer.state.log_history if "loss" in entry])
        assert trainer.shares_encoder
        assert not any(parameter.requires_grad for parameter in trainer.model.model.encoder.parameters())
    assert losses[0] == losses[1]
    assert len(made) == 3  # one at construction
    assert trainer.model is made[-1]
    with_model = build(max_steps=2)
    with_model.train()
    assert losses[0][0] == pytest.approx(with_model.state.log_history[0]["loss"], rel=1e-6)


def test_a_search_over_settings_searches_those_of_the_loss(tiny_whisper, chunks, processor, tmp_path):
    """With optuna: a trial's weights, temperature and draws are those that it trains with."""
    seen = []

    class Watched(K2DTrainer):
        def compute_loss(self, *args, **kwargs):
            seen.append((self.loss_weights.kl, self.data_collator.timestamp_probability, self.args.learning_rate))
            return super().compute_loss(*args, **kwargs)

    args = K2DTrainingArguments(
        str(tmp_path), use_cpu=True, report_to="none", disable_tqdm=True, save_strategy="no", max_steps=1,
        eval_strategy="steps", eval_steps=1, keep_encoder_states=False, per_device_train_batch_size=2,
    )  # fmt: skip
    trainer = Watched(
        model_init=lambda trial: create_student(tiny_whisper, language="zh"), args=args, teacher_model=tiny_whisper,
        train_dataset=chunks, eval_dataset=chunks.select(range(2)), processing_class=processor,
    )  # fmt: skip
    wanted = [(0.25, 0.0, 1e-4), (0.75, 1.0, 1e-3)]

    def space(trial):
        kl, timestamps, rate = wanted[trial.number]
        return {
            "kl_weight": trial.suggest_float("kl_weight", kl, kl),
            "timestamp_probability": trial.suggest_float("timestamp_probability", timestamps, timestamps),
            "learning_rate": trial.suggest_float("learning_rate", rate, rate),
        }

    best = trainer.hyperparameter_search(space, n_trials=2, backend="optuna", direction="minimize")
    assert list(dict.fromkeys(seen)) == wanted
    assert best.objective > 0


def test_a_compiled_student_trains_to_the_same_weights(build, chunks):
    trained = []
    for compiled in ({}, {"torch_compile": True, "torch_compile_backend": "eager"}):
        torch._dynamo.reset()
        trainer = build(eval_dataset=chunks.select(range(1)), **compiled, **SGD, **WRITES)
        trainer.train()
        assert "eval_mer" in trainer.evaluate()
        trainer.save_model()
        trained.append(load_whisper(trainer.args.output_dir).state_dict())
    assert trained[0].keys() == trained[1].keys()
    assert max(float((trained[0][name] - trained[1][name]).abs().max()) for name in trained[0]) < 1e-6


def untied(teacher):
    """A student whose output layer is a matrix of its own."""
    student = create_student(teacher, language="zh")
    student.config.tie_word_embeddings = False
    student.proj_out.weight = torch.nn.Parameter(student.proj_out.weight.detach().clone())
    return student


def test_an_output_layer_of_its_own_is_trained_and_frozen_as_the_embedding_is(build, tiny_whisper):
    student = untied(tiny_whisper)
    trainer = build(student=student, **SGD)
    assert trainer.args.ddp_find_unused_parameters is False
    trainer.train()
    assert not torch.equal(student.proj_out.weight, tiny_whisper.proj_out.weight)
    with pytest.raises(K2DError, match="ddp_find_unused_parameters: not with an output layer that is not tied"):
        build(student=untied(tiny_whisper), ddp_find_unused_parameters=True)
    frozen = untied(tiny_whisper)
    build(student=frozen, freeze_embeddings=True, **SGD).train()
    assert torch.equal(frozen.proj_out.weight, tiny_whisper.proj_out.weight)
    assert torch.equal(frozen.model.decoder.embed_tokens.weight, tiny_whisper.model.decoder.embed_tokens.weight)


def logits(model):
    features = torch.randn(1, 80, 3000, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        inputs = torch.tensor([[50258, 50260, 50359, 100]])
        return model.eval()(input_features=features, decoder_input_ids=inputs).logits


@pytest.mark.parametrize("given", ["in memory", "changed in memory", "folder"])
def test_adapters_are_saved_with_what_they_were_trained_on(build, tiny_whisper, processor, tmp_path, noise_file, given):
    """Not with the teacher, on which they would load with other layers and no more than a warning."""
    student = create_student(tiny_whisper, [0, 3], language="zh")
    if given == "changed in memory":
        torch.nn.init.normal_(student.model.decoder.layers[0].fc1.weight, 0, 0.1)
    if given == "folder":
        student.save_pretrained(tmp_path / "start")
        processor.save_pretrained(tmp_path / "start")
        student = str(tmp_path / "start")
    config = copy.deepcopy(LORA)
    config.modules_to_save = ["layer_norm"]
    trainer = build(
        student=student, peft_config=config, max_steps=2, learning_rate=0.05, save_strategy="steps", save_steps=1
    )
    trainer.train()
    trainer.save_model()
    expected = logits(trainer.model)
    assert not torch.allclose(expected, logits(tiny_whisper))
    for saved in (tmp_path, tmp_path / "checkpoint-2"):
        assert torch.allclose(logits(load_whisper(saved)), expected, atol=1e-4), saved
    recognise = pipeline("automatic-speech-recognition", model=str(tmp_path), device="cpu")
    assert torch.allclose(logits(recognise.model), expected, atol=1e-4)
    assert isinstance(recognise(read_audio(noise_file, 0.0, 3.0), generate_kwargs={"max_new_tokens": 3})["text"], str)
    assert (tmp_path / "base").exists() == (given != "folder")


def test_adapters_move_with_their_base(build, tmp_path):
    trainer = build(peft_config=LORA, max_steps=1, learning_rate=0.05)
    trainer.train()
    trainer.save_model()
    moved = tmp_path.parent / f"{tmp_path.name}-moved"
    shutil.copytree(tmp_path, moved)
    shutil.rmtree(tmp_path / "base")
    assert torch.allclose(logits(load_whisper(moved)), logits(trainer.model), atol=1e-4)
    assert json.loads((moved / "base.json").read_text())["sources"] == ["./base"]


def test_a_saved_base_is_the_student_before_training(build, tiny_whisper, tmp_path):
    before = create_student(tiny_whisper, language="zh").state_dict()
    trainer = build(peft_config=LORA, max_steps=2, learning_rate=0.05)
    trainer.train()
    base = WhisperForConditionalGeneration.from_pretrained(tmp_path / "base").state_dict()
    assert base.keys() == before.keys()
    assert all(torch.equal(base[name], before[name]) for name in base)
    assert np.isfinite(trainer.state.log_history[0]["loss"])
