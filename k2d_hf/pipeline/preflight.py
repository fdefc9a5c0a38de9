"""What is asked of all settings before the first stage begins, so that none of them stops a run hours in.

Used by `k2d run`, by its plan (`--dry-run`), and, stage by stage, by the commands.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from k2d_hf.distillation.rehearsal import rehearse
from k2d_hf.errors import K2DError, prefixed
from k2d_hf.files.folders import check_writable
from k2d_hf.formatting import error_message
from k2d_hf.labelling.measures import measured_columns
from k2d_hf.labelling.settings import LabelSettings
from k2d_hf.models import Checkpoint
from k2d_hf.models.hub import ensure_hub_state
from k2d_hf.models.language_mix import check_mixable
from k2d_hf.models.parts import layer_indices, neuron_count
from k2d_hf.models.processors import load_tokenizer
from k2d_hf.models.shapes import WhisperShape, shape_of_config
from k2d_hf.models.whisper_tokens import LabelEncoder
from k2d_hf.pipeline.recipe import Recipe, key_of_set
from k2d_hf.pipeline.training import peft_config
from k2d_hf.transcription.engines import check_options, engine_named
from k2d_hf.validation.judges import JUDGES, limits_of


def training_lacks(values: Mapping[str, Any], where: str) -> list[str]:
    """Rehearse training with settings that `read_distil` gave; returns what this machine lacks for them.

    Both that and errors, which name the setting that would stop training, begin with `where`, such as `distil.`.
    """
    if values.get("encoder_weight") and values.get("freeze_encoder", True):
        raise K2DError(f"{where}encoder_weight: the student's encoder is frozen; set {where}freeze_encoder to false")
    if isinstance(values.get("generation_config"), str):
        ensure_hub_state()  # where it may lie, and would be waited for
    if states := values.get("encoder_states_dir"):
        check_writable(Path(states))
    with prefixed(where):
        lack = rehearse({name: value for name, value in values.items() if name != "peft"})
    return [f"{where}{lack}"] if lack else []


def check_adapters(values: Mapping[str, Any], student: WhisperShape | None, where: str) -> None:
    """Raise K2DError if peft makes no adapters of the settings, such as for modules that a Whisper does not have.

    They are given to a model of the student's shape that has no weights; a shape that is not known passes.
    """
    if not values.get("peft") or student is None:
        return
    import torch
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    from k2d_hf.distillation.initial_weights import check_adapters_scale
    from k2d_hf.distillation.models import output_embedding, with_adapters

    sizes = {name: getattr(student, name) for name in ("d_model", "encoder_layers", "decoder_layers", "vocab_size")}
    sizes |= {"encoder_ffn_dim": student.encoder_neurons, "decoder_ffn_dim": student.decoder_neurons}
    sizes |= {"num_mel_bins": student.num_mel_bins, "encoder_attention_heads": 1, "decoder_attention_heads": 1}
    try:
        with torch.device("meta"):
            model = WhisperForConditionalGeneration(WhisperConfig(**sizes))
            adapted = with_adapters(
                model, peft_config(values["peft"]), freeze_encoder=values.get("freeze_encoder", True)
            )
        output_embedding(model)
        if values.get("initial_share"):
            check_adapters_scale(adapted)
    except Exception as error:  # of peft, which has many kinds
        raise K2DError(f"{where}peft: {error if isinstance(error, K2DError) else error_message(error)}") from None


def student_shape(origin: WhisperShape | None, recipe: Recipe) -> WhisperShape | None:
    """The shape of the student that a recipe makes of a model; K2DError for layers or neurons that it does not have."""
    if origin is None:
        return None
    settings = recipe.student
    whose = "teacher" if settings.init is None else "model of student.init"
    decoder = layer_indices(settings.decoder_layers, origin.decoder_layers, what="student.decoder_layers", whose=whose)
    encoder = layer_indices(settings.encoder_layers, origin.encoder_layers, what="student.encoder_layers", whose=whose)
    count, had = settings.encoder_neurons, origin.encoder_neurons
    width = neuron_count(count, had, what="student.encoder_neurons", whose=whose)
    return replace(origin, encoder_layers=len(encoder), decoder_layers=len(decoder), encoder_ffn_dim=width)


def lost_parts(origin: WhisperShape | None, recipe: Recipe) -> list[str]:
    """Warnings of parts that the student lost and does not learn to do without."""
    student = student_shape(origin, recipe)
    if origin is None or student is None:
        return []
    names = "encoder_layers", "encoder_neurons", "decoder_layers"
    lost = [name for name in names if getattr(student, name) < getattr(origin, name)]
    of_encoder = " and ".join(f"student.{name}" for name in lost if name != "decoder_layers")
    warnings = []
    if of_encoder and recipe.distil.get("freeze_encoder", True):
        warnings.append(
            f"{of_encoder}: the encoder loses parts, and is frozen, so it never learns to do without them; set "
            "distil.freeze_encoder to false, and distil.encoder_weight above 0"
        )
    if lost and recipe.distil.get("initial_share"):
        warnings.append(
            f"distil.initial_share: the student begins without parts of the model that it is made of (student.{lost[0]}"
            "), and recognises nothing before it is trained, so a share of that beginning harms; leave it out, or set "
            "student.init to a model that needs to lose none"
        )
    return warnings


def check_origin(origin: Checkpoint, teacher: Checkpoint, where: str) -> None:
    """Raise K2DError if a student with the layers of `origin`, named by `where`, cannot learn from the teacher."""
    ours, theirs = _config(origin), _config(teacher)
    for name, what in (("vocab_size", "tokens"), ("d_model", "dimensions"), ("num_mel_bins", "mel bins")):
        if ours[name] != theirs[name]:
            raise K2DError(
                f"{where}: {origin.name} has {ours[name]} {what}, the teacher {theirs[name]}: begin with a model of "
                "the teacher's family"
            )


def check_mix(mix: Mapping[str, float] | None, origin: Checkpoint, where: str) -> None:
    """Raise K2DError, which begins with `where`, if no student of `origin` can begin with this mix of languages."""
    if mix is not None:
        with prefixed(where):
            check_mixable(mix, _config(origin), load_tokenizer(origin.path))


def check_models(recipe: Recipe, teacher: Checkpoint, auxiliary: Checkpoint, origin: Checkpoint) -> None:
    """Raise K2DError for what would stop a later stage by the models' configs: kinds, layers, tokens, adapters."""
    from k2d_hf.distillation.loss.losses import check_vocabulary

    configs = [_config(model) for model in (teacher, auxiliary, origin)]
    check_adapters(recipe.distil, student_shape(shape_of_config(configs[2]), recipe), "distil.")
    check_origin(origin, teacher, "student.init")
    check_mix(recipe.student.language_mix, origin, "student.")
    vocabulary = configs[0]["vocab_size"]
    if recipe.distil.get("auxiliary_weight"):
        check_vocabulary("auxiliary", configs[1]["vocab_size"], vocabulary)
    if recipe.targets.kind == "top" and recipe.targets.k > vocabulary:
        raise K2DError(f"targets.k: {recipe.targets.k}: the teacher has {vocabulary} tokens")


def check_auxiliaries(auxiliaries: Sequence[Checkpoint]) -> None:
    """Raise K2DError if one of several auxiliaries is there twice, or no Whisper."""
    for at, one in enumerate(auxiliaries):
        _config(one)
        if one.path in [other.path for other in auxiliaries[:at]]:
            raise K2DError(f"more_auxiliaries: {one.name} is an auxiliary already; give another, or leave it out")


def check_languages(recipe: Recipe, teacher: Checkpoint, *auxiliaries: Checkpoint) -> None:
    """Raise K2DError if a vocabulary of the models does not have a language that the recipe names."""
    languages = {"language": recipe.language, "distil.language": recipe.distil.get("language")}
    languages |= {f"mix.{name}.language": data.language for name, data in recipe.sources.items()}
    models = list(dict.fromkeys((teacher, *auxiliaries)))
    asked = [(key, language, model) for key, language in languages.items() for model in models]
    asked += [(f"{key_of_set(name)}.language", one.language, teacher) for name, one in recipe.evaluation_sets.items()]
    for key, language, model in asked:
        if language is not None:
            with prefixed(f"{key}: {model.name}: "):  # `yue`, for one, came with large-v3 alone
                LabelEncoder(load_tokenizer(model.path)).start_ids(language)


def check_judges(recipe: Recipe) -> None:
    """Raise K2DError for a limit of what labelling would not measure."""
    limits = limits_of(vars(recipe.validate))
    for judge in JUDGES:
        if judge.measure is not None or judge.setting not in limits:
            continue
        if not recipe.label.measures:
            raise K2DError(f"validate.{judge.setting}: labelling does not measure it; set label.measures to true")
        if judge.column in _measured_by(recipe.label):
            continue
        ways: dict[str, Any] = {"engine": "faster-whisper", "beam_size": 1, "temperature_fallback": False}
        changes = ["leave the limit out"]
        for name, value in ways.items():
            with suppress(K2DError):  # of an engine that is not installed
                if judge.column in _measured_by(replace(recipe.label, **{name: value})):
                    changes.insert(-1, f"set label.{name} to {str(value).lower()}")
        engine = engine_named(recipe.label.engine).name
        raise K2DError(
            f"validate.{judge.setting}: the engine {engine} does not give {judge.column} as it decodes here; "
            + ", or ".join(changes)
        )


def _measured_by(settings: LabelSettings) -> Collection[str]:
    """The columns for judges that labelling writes with these settings."""
    return measured_columns(engine_named(settings.engine).confidence(settings.decoding(None)))


def check_prompts(recipe: Recipe, teacher: Checkpoint) -> None:
    """Raise K2DError if the teacher's prompt, or its hot words, are longer than Whisper takes."""
    with prefixed("label."):
        check_options(recipe.label.decoding(None), recipe.label.engine, teacher.path)


def _config(checkpoint: Checkpoint) -> dict[str, Any]:
    config = json.loads((checkpoint.path / "config.json").read_text(encoding="utf-8"))
    if config.get("model_type") != "whisper":
        raise K2DError(f"model {checkpoint.name}: a {config.get('model_type')} model, not Whisper; give a Whisper one")
    return config
