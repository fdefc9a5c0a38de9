"""What is wrong in any setting is found before the first stage: by `k2d run`, by its plan, and by each command."""

import dataclasses
import shutil
import sys
import typing
from enum import Enum

import pytest
import yaml

from k2d_hf import K2DTrainingArguments
from k2d_hf.cli import main
from k2d_hf.distillation.arguments import RANGES
from k2d_hf.distillation.settings import DistillationSettings
from k2d_hf.files.settings import hints_of, section_of
from k2d_hf.pipeline.recipe import MANAGED, Recipe
from k2d_hf.scoring import espeak

HINTS = hints_of(Recipe)
SECTIONS = {name: section_of(hint) for name, hint in HINTS.items() if section_of(hint) is not None}
OF_TYPE = {
    int: ("many", 1.5, True),
    float: ("wide", "nan", "inf", True),
    bool: ("maybe", 3),
    str: (3, {"a": 1}),
    list: ({"a": 1}, [{"a": 1}]),
    dict: (3, [1]),
}
BY_NAME = {  # what has the right type, and is wrong all the same
    "device": ("gpu", "cuda:99", "abacus", "cuda:x", ""),
    "dtype": ("int4", "float", "float64x"),
    "address": ("nowhere", "ray://host", "127.0.0.1:1"),
    "worker_cpus": (-1,),
    "repo_id": ("x", "a/b/c", "me/x y"),
    "data_repo_id": ("x",),
    "revision": ("a b", "a..b", "/a", "a.lock"),
    "language": ("klingon", "zz"),
    "espeak_language": ("klingon", "zz"),
    "decoder_layers": (0, 99, [], [0, 0], [9]),
    "encoder_layers": (0, 99, [0, 0]),
    "encoder_neurons": (0, 10**6),
    "name": ("a/b", ""),
    "recordings": ("nowhere.jsonl",),
    "evaluation": ("nowhere.jsonl", "recordings", "unreadable.jsonl"),  # `recordings` has no references
    "references": ("nowhere.jsonl",),
    "source": ("./nowhere",),
    "k": (10**9,),
    "more_auxiliaries": ("teacher", [3], [["nowhere", "./nowhere"]], ["auxiliary"]),  # which is one already
    "channel": ("left", -1),
    "output": ("recipe.yaml", "recipe.yaml/inside"),
}
VERBS = {
    "label": ("label", "nowhere", "--teacher", "nowhere", "--output", "out"),
    "validate": ("validate", "nowhere", "--auxiliary", "nowhere", "--output", "out"),
    "student": ("student", "nowhere", "--output", "out"),
    "targets": ("targets", "nowhere", "--student", "nowhere", "--teacher", "nowhere", "--output", "out"),
    "distil": ("distil", "nowhere", "--student", "nowhere", "--output", "out"),
    "evaluate": ("evaluate", "nowhere", "--data", "nowhere", "--output", "out"),
}
NEEDS_THE_MODEL = (
    "decoder_layers",
    "encoder_layers",
    "encoder_neurons",
    "k",
)  # whose layers and tokens are not known before


@pytest.fixture
def here(workplace, tmp_path, monkeypatch):
    """A copy of the workplace as the current folder."""
    folder = shutil.copytree(workplace, tmp_path / "here")
    (folder / "unreadable.jsonl").write_text('{"audio": "recordings/broken.wav", "text": "a b"}\n', encoding="utf-8")
    monkeypatch.chdir(folder)
    return folder


def refused(capsys, *command, naming):
    """Run a command that must stop with one line, naming the setting, before any stage has begun."""
    status = main([str(word) for word in command])
    captured = capsys.readouterr()
    assert status == 1, command
    assert captured.err.startswith("k2d: "), (command, captured)
    assert captured.err.count("\n") == 1, (command, captured.err)
    assert naming in captured.err, (command, captured.err)
    assert "K2D_DEBUG" not in captured.err, (command, captured.err)
    assert "label " not in captured.out, (command, captured.out)


def wrong_values(field, hint):
    options = typing.get_args(hint) or (hint,)
    values = list(BY_NAME.get(field.name, ()))
    if field.name == "channel":  # a number or a word; whether a recording has it is known when it is read
        return values
    for kind in (typing.get_origin(option) or option for option in options):
        values += OF_TYPE.get(kind, ())
    limits = field.metadata
    values += [limits["least"] - 1] if limits.get("least") is not None else []
    values += [limits["most"] + 1] if limits.get("most") is not None else []
    values += ["nonsense"] if limits.get("choices") else []
    return [value for value in values if not _fits(value, options)]


def _fits(value, options):
    kinds = [typing.get_origin(option) or option for option in options]
    return (value is True and bool in kinds) or (isinstance(value, dict) and dict in kinds)


def as_yaml(value):
    return yaml.safe_dump(value, default_flow_style=True, width=10**6).removesuffix("...\n").strip()


def test_every_field_of_a_recipe_has_wrong_values_and_each_is_refused(here, capsys):
    for field in dataclasses.fields(Recipe):
        if field.name not in SECTIONS:
            values = wrong_values(field, HINTS[field.name])
            assert values, field.name
            for value in [value for value in values if not (field.name in ("teacher", "auxiliary") and value == [])]:
                for more in ([], ["--dry-run"]):
                    elsewhere = more and isinstance(value, str) and field.name in ("references",)
                    if not elsewhere:  # data may lie on the machine that the plan is for
                        refused(
                            capsys,
                            "run",
                            "recipe.yaml",
                            *more,
                            "--set",
                            f"{field.name}={as_yaml(value)}",
                            naming=field.name,
                        )


@pytest.mark.parametrize("rounds", [1, 2])  # a setting of the last round is refused before the first
@pytest.mark.parametrize("section", SECTIONS)
def test_every_setting_of_a_stage_is_refused_before_the_first(here, capsys, section, rounds):
    hints = hints_of(SECTIONS[section])
    sources = {"evaluation": "dev.jsonl", "recordings": "recordings", "mix": "dev.jsonl"}
    base = {name: f"{name}={{source: {source}, %s}}" for name, source in sources.items()}
    sets = ["--set", f"rounds={rounds}", *(["--set", "hub.repo_id=me/x"] if section == "hub" else [])]
    for field in dataclasses.fields(SECTIONS[section]):
        values = wrong_values(field, hints[field.name])
        assert values, field.name
        for value in values:
            text = f"{field.name}: {as_yaml(value)}"
            given = base[section] % text if section in base else f"{section}.{field.name}={as_yaml(value)}"
            if field.name == "source":
                given = f"{section}={{{text}}}"
            also = ["--set", "label.engine=ray", "--set", "validate.engine=ray"] if field.name == "address" else []
            also += ["--set", "targets.kind=top"] if field.name == "k" else []
            refused(
                capsys,
                "run",
                "recipe.yaml",
                *sets,
                *also,
                "--set",
                given,
                naming=section if field.name == "source" else field.name,
            )
        if rounds == 1 and section in VERBS and field.name not in (*NEEDS_THE_MODEL, "enabled", "before"):
            for value in values:
                also = ["--set", "engine=ray"] if field.name == "address" else []
                refused(capsys, *VERBS[section], *also, "--set", f"{field.name}={as_yaml(value)}", naming=field.name)
    assert not (here / "out").exists()
    assert not (here / "runs" / "tiny" / "chunks").exists()


@pytest.mark.parametrize("section", SECTIONS)
def test_a_plan_refuses_what_no_machine_can_run(here, capsys, section):
    hints = hints_of(SECTIONS[section])
    for field in dataclasses.fields(SECTIONS[section]):
        if section in ("evaluation", "recordings", "mix"):
            continue
        for value in wrong_values(field, hints[field.name]):
            if value in ("cuda:99", "127.0.0.1:1"):  # which another machine may have
                continue
            sets = ["--set", f"{section}.{field.name}={as_yaml(value)}"]
            sets += ["--set", f"{section}.engine=ray"] if field.name == "address" else []
            sets += ["--set", "targets.kind=top"] if field.name == "k" else []
            refused(capsys, "run", "--dry-run", "recipe.yaml", *sets, naming=field.name)


def test_every_field_of_training_is_refused_where_its_type_is_wrong(here, capsys):
    hints = hints_of(K2DTrainingArguments)
    for field in dataclasses.fields(K2DTrainingArguments):
        if field.name in MANAGED:
            refused(
                capsys, *VERBS["distil"], "--set", f"{field.name}=x", naming=f"{field.name}: this one is set by k2d"
            )
            continue
        options = typing.get_args(hints[field.name]) or (hints[field.name],)
        kinds = [typing.get_origin(option) or option for option in options]
        value = "maybe" if bool in kinds and str not in kinds else {"a": 1}
        value = (
            3.5
            if dict in kinds
            else "nonsense"
            if any(isinstance(k, type) and issubclass(k, Enum) for k in kinds)
            else value
        )
        for command in (VERBS["distil"], ("run", "recipe.yaml")):
            key = field.name if command[0] == "distil" else f"distil.{field.name}"
            refused(capsys, *command, "--set", f"{key}={as_yaml(value)}", naming=_named(field.name))


ENUMS = ("logging_strategy", "eval_strategy", "save_strategy", "hub_strategy")


def _named(name):
    return {"lr_scheduler_type": "SchedulerType", "optim": "OptimizerNames"}.get(
        name, "Strategy" if name in ENUMS else name
    )


def test_every_number_of_training_has_a_range():
    hints = hints_of(K2DTrainingArguments)
    numbers = {
        name
        for name, hint in hints.items()
        if {int, float} & set(typing.get_args(hint) or (hint,)) and name not in MANAGED
    }
    assert numbers == set(RANGES)


@pytest.mark.parametrize("name", RANGES)
def test_a_number_out_of_its_range_is_refused(here, capsys, name):
    least, most = RANGES[name]
    for value in [least - 1, *([most + 1] if most < 1e300 else [])]:
        value = (
            int(value)
            if name in dir(K2DTrainingArguments) and isinstance(getattr(K2DTrainingArguments, name, 0.0), int)
            else value
        )
        value = int(value) if hints_of(K2DTrainingArguments)[name] in (int, int | None) else value
        refused(capsys, *VERBS["distil"], "--set", f"{name}={value}", naming=name)
        refused(capsys, "run", "--dry-run", "recipe.yaml", "--set", f"distil.{name}={value}", naming=name)


LATE = [  # each would stop training at its first step, or its end
    ("per_device_train_batch_size=0", "per_device_train_batch_size 0: must be"),
    ("learning_rate=-1", "learning_rate -1.0: must be"),
    ("max_steps=0", "max_steps 0: give at least 1"),
    ("report_to=wandb", "report_to: WandbCallback requires wandb to be installed"),
    ("report_to=[tensorboard, nobody]", "report_to: nobody is not supported"),
    ("optim=adamw_bnb_8bit", "optim: You need to install `bitsandbytes`"),
    ("optim_args=nonsense", "optim_args: "),
    ("lr_scheduler_kwargs={nonsense: 1}", "lr_scheduler_kwargs: "),
    ("lr_scheduler_kwargs=nonsense", "lr_scheduler_kwargs 'nonsense': must be a mapping"),
    ("lr_scheduler_type=reduce_lr_on_plateau", "lr_scheduler_type reduce_lr_on_plateau requires an eval strategy"),
    ("eval_strategy=steps", "eval_strategy: there are no chunks for evaluation"),
    ("load_best_model_at_end=true", "load_best_model_at_end"),
    ("eval_on_start=true", "eval_on_start: "),
    ("save_strategy=best", "save_strategy: "),
    ("save_steps=0", "save_steps 0: must be above 0"),
    ("use_liger_kernel=true", "use_liger_kernel: "),
    ("deepspeed=nowhere.json", "deepspeed"),
    ("fsdp=nonsense", "fsdp"),
    ("accelerator_config={nonsense: 1}", "accelerator_config"),
    ("dataloader_prefetch_factor=2", "--dataloader_prefetch_factor can only be set"),
    (
        "dataloader_num_workers=2, dataloader_multiprocessing_context: nonsense",
        "dataloader_multiprocessing_context 'nonsense': choose one of fork",
    ),
    (
        "dataloader_persistent_workers=true",
        "dataloader_persistent_workers: persistent_workers option needs num_workers > 0",
    ),
    ("torch_compile_backend=nonsense", "torch_compile_backend: Invalid backend"),
    ("torch_compile_mode=nonsense", "torch_compile_mode: "),
    ("log_level=loud", "log_level 'loud': choose one of"),
    ("ddp_backend=carrier-pigeon", "ddp_backend"),
    ("train_sampling_strategy=worst", "train_sampling_strategy 'worst': choose one of"),
    ("train_sampling_strategy=batch_rebalance", "train_sampling_strategy 'batch_rebalance': the chunks have no column"),
    ("metric_for_best_model=mer", "metric_for_best_model 'mer' needs predict_with_generate"),
    ("gradient_checkpointing=true, gradient_checkpointing_kwargs: {nonsense: 1}", "gradient_checkpointing_kwargs: "),
    ("generation_config=./nowhere", "generation_config: "),
    ("fp16=true, bf16: true", "bf16"),
    ("encoder_weight=0.5", "encoder_weight: the student's encoder is frozen"),
    ("language=klingon", "language 'klingon' is unknown: give a code such as zh"),
    ("encoder_states_dir=recipe.yaml", "recipe.yaml: not a folder"),
    ("peft={rr: 3}", "peft.rr: no such setting"),
]


@pytest.mark.parametrize(("given", "line"), LATE)
def test_what_would_stop_training_is_refused_before_the_first_stage(here, capsys, given, line):
    name, _, value = given.partition("=")
    sets = ["--set", f"distil={{{name}: {value}}}"]
    refused(capsys, "run", "recipe.yaml", *sets, naming=line)
    refused(capsys, "run", "--dry-run", "recipe.yaml", *sets, naming=line)
    values = yaml.safe_load(f"{{{name}: {value}}}")
    options = [word for key, one in values.items() for word in ("--set", f"{key}={as_yaml(one)}")]
    refused(capsys, *VERBS["distil"], *options, naming=line)
    assert not (here / "runs" / "tiny" / "chunks").exists()


@pytest.mark.parametrize(
    ("sets", "line"),
    [
        (["recordings={source: recordings, streaming: true}"], "recordings.streaming: k2d run reads every recording"),
        (["evaluation={source: dev.jsonl, streaming: true}"], "evaluation.streaming: evaluation holds its recordings"),
        (["language=yue"], "language: teacher: language 'yue' is unknown to this vocabulary"),
        (["distil.language=yue"], "distil.language: teacher: language 'yue' is unknown"),
        (["label.address=auto"], "label.address: for the engine ray alone"),
        (["validate.engine=ray", "validate.worker_gpus=99"], "validate.worker_gpus: 99 GPUs for the workers"),
        (["validate.engine=ray", "validate.workers=100000"], "validate.worker_cpus: 100000 cores for the workers"),
        (["evaluate.engine=faster-whisper", "evaluate.device=mps"], "is no device of the engine faster-whisper"),
        (["evaluate.engine=transformers", "evaluate.dtype=int8"], "the engine transformers has auto, float32"),
        (["label.condition_on_previous_text=true", "label.hotwords=K2D"], "label.hotwords: the engine transformers gives none"),
        (["label.engine=faster-whisper", f"label.prompt={'字 ' * 300}"], "label.prompt has 600 tokens: Whisper takes"),
        (["label.prompt=<|en|> K2D"], "label.prompt: it has a special token, '<|en|> K2D'; write plain text"),
        (["validate.known_phrases=['*']"], "known_phrases: '*' has no word"),
    ],
)  # fmt: skip
def test_settings_that_do_not_go_together_are_refused_before_the_first_stage(here, capsys, sets, line):
    given = [word for one in sets for word in ("--set", one)]
    for rounds in (1, 2):
        refused(capsys, "run", "recipe.yaml", *given, "--set", f"rounds={rounds}", naming=line)
    if "workers" not in line:  # of which another machine may have room for more
        refused(capsys, "run", "--dry-run", "recipe.yaml", *given, naming=line)


@pytest.mark.parametrize(
    "peft", ["{target_modules: [nowhere]}", "{r: 0}", "{target_modules: [proj_out]}", "{init_lora_weights: nonsense}"]
)
def test_adapters_that_cannot_be_made_are_refused_before_the_first_stage(here, capsys, peft):
    for more in ([], ["--dry-run"], ["--set", "rounds=2"]):
        refused(capsys, "run", "recipe.yaml", *more, "--set", f"distil.peft={peft}", naming="distil.peft: ")
    assert not (here / "runs" / "tiny" / "chunks").exists()


@pytest.mark.parametrize(
    "given",
    [
        "targets.device=cuda:99", "label.device=cuda:99", "evaluate.device=cuda:99", "validate.dtype=bfloat16",
        "distil.bf16=true", "distil.tf32=true",
    ],
)  # fmt: skip
def test_what_this_machine_lacks_is_a_note_of_the_plan_and_stops_the_run(here, capsys, given):
    sets = ["--set", "validate.engine=faster-whisper", "--set", "validate.device=cpu", "--set", given]
    refused(capsys, "run", "recipe.yaml", *sets, naming=given.partition("=")[0].removeprefix("distil."))
    assert main(["run", "--dry-run", "recipe.yaml", *sets]) == 0
    notes = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Not on this machine: ")]
    assert len(notes) == 1
    assert given.partition("=")[0] in notes[0]


def test_what_is_right_is_rehearsed_once_and_leaves_no_trace(tmp_path, monkeypatch):
    import random

    import numpy as np
    import torch

    from k2d_hf.distillation import rehearsal

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(rehearsal, "_REHEARSED", {})
    draws = [random.random, np.random.rand, lambda: torch.rand(1).item()]
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(3)
    expected = [draw() for draw in draws]
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(3)
    assert (
        rehearsal.rehearse({"max_steps": 7, "use_cpu": True, "weight_decay": 0.1, "neftune_noise_alpha": 5.0}) is None
    )
    assert [draw() for draw in draws] == expected
    assert len(rehearsal._REHEARSED) == 1
    assert list(tmp_path.iterdir()) == []


def test_all_settings_of_training_together_are_told_apart(here, capsys):
    sets = "distil={max_steps: 2, weight_decay: 0.1, report_to: wandb, learning_rate: 1e-4}"
    refused(capsys, "run", "recipe.yaml", "--set", sets, naming="distil.report_to: ")


def test_settings_of_training_are_those_of_help():
    assert {field.name for field in dataclasses.fields(DistillationSettings)} <= set(hints_of(K2DTrainingArguments))


@pytest.mark.parametrize("more", [[], ["--dry-run"]])
def test_espeak_that_is_missing_is_named_before_any_work(here, capsys, monkeypatch, more):
    monkeypatch.setitem(sys.modules, "phonemizer.backend", None)
    espeak._languages.cache_clear()
    command = ("run", "recipe.yaml", "--set", "validate.espeak_language=es", *more)
    refused(capsys, *command, naming="validate.espeak_language: phonemes in IPA need espeak-ng: pip install")
    command = ("validate", "nowhere", "--auxiliary", "nowhere", "--output", "out", "--espeak-language", "es")
    refused(capsys, *command, naming="validate: espeak_language: phonemes in IPA need espeak-ng")
