"""Another value for every setting that a recipe takes, so that a new setting without one fails the tests.

A value is given as the assignments that make it. `Change.why_not` says why no run is made of it.
"""

import dataclasses
from dataclasses import dataclass

from k2d_hf import K2DTrainingArguments
from k2d_hf.distillation.settings import DistillationSettings
from k2d_hf.files.settings import hints_of, section_of
from k2d_hf.pipeline.recipe import MANAGED, Recipe
from k2d_hf.validation.judges import JUDGES


@dataclass(frozen=True)
class Change:
    """A setting with another value: assignments as `--set` takes them, and why it is not run, if it is not."""

    sets: tuple[str, ...]
    why_not: str | None = None


def sets(*assignments):
    """A change that is run."""
    return Change(assignments)


def unrun(why, *assignments):
    """A change of which the keys alone are looked at."""
    return Change(assignments, why)


def limited(judge):
    """A limit of a judge, with what labelling has to measure for it, and an engine that can."""
    measures = ["label.measures=true", "label.engine=faster-whisper"] if judge.measure is None else []
    return sets(f"validate.{judge.setting}={judge.example}", *measures)


def fields_of_a_recipe():
    """The settings of a recipe by full name, those of its sections and of training too."""
    hints = hints_of(Recipe)
    names = []
    for field in dataclasses.fields(Recipe):
        section = section_of(hints[field.name])
        inner = [one.name for one in dataclasses.fields(section)] if section else [""]
        names += [f"{field.name}.{one}".rstrip(".") for one in inner if field.name != "distil"]
    training = [one.name for one in dataclasses.fields(K2DTrainingArguments) if one.init and one.name not in MANAGED]
    return [*names, *(f"distil.{name}" for name in [*training, "peft"])]


GPU = "takes a GPU"
REFUSED = "refused whatever else is set"
HUB = "takes a Hub"
RAY = "takes a Ray cluster"
PROCESSES = "takes several processes"
ROWS = "decides through the rows, which the key is made of"
EVALUATION = "there are no chunks for evaluation while a recipe trains, and it says so"


def another_value(field):
    """A value that a setting of distillation may have, besides its default."""
    about, value = field.metadata, field.default
    if isinstance(value, bool):
        return str(not value).lower()
    if about["choices"]:
        return next(one for one in about["choices"] if one != value)
    lower = about["least"] + 1 if value == about["least"] else value / 2
    return type(value)(min(lower, about["most"]))


# Of a setting of ours that is not below: its declaration tells of another value.
OURS = {one.name: one for one in dataclasses.fields(DistillationSettings)}
CHOSEN = {
    "kl_weight": sets("distil.kl_weight=0"),
    "shares": unrun(REFUSED),
    "espeak_language": unrun(REFUSED),  # a recipe has that of validation
    "auxiliary_weight": sets("distil.auxiliary_weight=0.5"),
    "encoder_weight": sets("distil.encoder_weight=0.5", "distil.freeze_encoder=false", "student.encoder_layers=[0]"),
    "timestamp_probability": sets("distil.timestamp_probability=1"),
    "previous_text_probability": sets("distil.previous_text_probability=0"),
    "encoder_states_dir": sets("distil.encoder_states_dir={elsewhere}"),
    "language": sets("distil.language=en"),
    "per_device_train_batch_size": sets("distil.per_device_train_batch_size=2"),
    "num_train_epochs": unrun("max_steps is given", "distil.num_train_epochs=1"),
    "max_steps": sets("distil.max_steps=1"),
    "learning_rate": sets("distil.learning_rate=1e-4"),
    "lr_scheduler_type": sets("distil.lr_scheduler_type=constant"),
    "lr_scheduler_kwargs": sets("distil.lr_scheduler_type=polynomial", "distil.lr_scheduler_kwargs={{power: 2}}"),
    "warmup_steps": sets("distil.warmup_steps=2"),
    "optim": sets("distil.optim=sgd"),
    "optim_args": unrun("of optimizers that are not installed", "distil.optim_args='rank=2'"),
    "weight_decay": sets("distil.weight_decay=0.1"),
    "adam_beta1": sets("distil.adam_beta1=0.5"),
    "adam_beta2": sets("distil.adam_beta2=0.5"),
    "adam_epsilon": sets("distil.adam_epsilon=1e-3"),
    "optim_target_modules": unrun("of optimizers that are not installed", "distil.optim_target_modules=[fc1]"),
    "gradient_accumulation_steps": sets("distil.gradient_accumulation_steps=2"),
    "average_tokens_across_devices": sets("distil.average_tokens_across_devices=false"),
    "max_grad_norm": sets("distil.max_grad_norm=0.1"),
    "label_smoothing_factor": unrun(REFUSED, "distil.label_smoothing_factor=0.1"),
    "bf16": sets("distil.bf16=true", "distil.use_cpu=true"),
    "fp16": unrun(GPU, "distil.fp16=true"),
    "bf16_full_eval": unrun(EVALUATION, "distil.bf16_full_eval=true", "distil.use_cpu=true"),
    "fp16_full_eval": unrun(GPU, "distil.fp16_full_eval=true"),
    "tf32": unrun(GPU, "distil.tf32=true"),
    "activation_checkpointing": sets("distil.activation_checkpointing=true"),
    "activation_checkpointing_kwargs": sets(
        "distil.activation_checkpointing=true", "distil.activation_checkpointing_kwargs={{use_reentrant: false}}"
    ),
    "gradient_checkpointing": sets("distil.gradient_checkpointing=true"),
    "gradient_checkpointing_kwargs": sets(
        "distil.gradient_checkpointing=true", "distil.gradient_checkpointing_kwargs={{use_reentrant: false}}"
    ),
    "torch_compile": unrun("takes minutes, and a compiler", "distil.torch_compile=true"),
    "torch_compile_backend": unrun("takes minutes, and a compiler", "distil.torch_compile_backend=eager"),
    "torch_compile_mode": unrun("takes minutes, and a compiler", "distil.torch_compile_mode=default"),
    "use_liger_kernel": unrun(GPU, "distil.use_liger_kernel=true"),
    "liger_kernel_config": unrun(GPU, "distil.liger_kernel_config={{rope: false}}"),
    "use_cache": sets("distil.use_cache=true"),
    "neftune_noise_alpha": unrun("refused of an encoder-decoder", "distil.neftune_noise_alpha=5"),
    "torch_empty_cache_steps": sets("distil.torch_empty_cache_steps=1"),
    "auto_find_batch_size": sets("distil.auto_find_batch_size=true"),
    "logging_strategy": sets("distil.logging_strategy='no'"),
    "logging_steps": sets("distil.logging_steps=2"),
    "logging_first_step": sets("distil.logging_first_step=false", "distil.logging_steps=2"),
    "log_on_each_node": sets("distil.log_on_each_node=false"),
    "logging_nan_inf_filter": sets("distil.logging_nan_inf_filter=false"),
    "include_num_input_tokens_seen": unrun("counts of no other model", "distil.include_num_input_tokens_seen=all"),
    "log_level": sets("distil.log_level=error"),
    "log_level_replica": sets("distil.log_level_replica=error"),
    "disable_tqdm": sets("distil.disable_tqdm=false"),
    "report_to": unrun("takes a service", "distil.report_to=tensorboard"),
    "run_name": sets("distil.run_name=other"),
    "project": sets("distil.project=other"),
    "trackio_space_id": sets("distil.trackio_space_id=me/space"),
    "trackio_bucket_id": sets("distil.trackio_bucket_id=me/bucket"),
    "trackio_static_space_id": sets("distil.trackio_static_space_id=me/space"),
    "eval_strategy": unrun(EVALUATION, "distil.eval_strategy=epoch"),
    "eval_steps": unrun(EVALUATION, "distil.eval_steps=3"),
    "eval_delay": unrun(EVALUATION, "distil.eval_delay=3"),
    "per_device_eval_batch_size": unrun(EVALUATION, "distil.per_device_eval_batch_size=3"),
    "prediction_loss_only": unrun(EVALUATION, "distil.prediction_loss_only=true"),
    "eval_on_start": unrun(EVALUATION, "distil.eval_on_start=true"),
    "eval_do_concat_batches": unrun(EVALUATION, "distil.eval_do_concat_batches=false"),
    "eval_use_gather_object": unrun(EVALUATION, "distil.eval_use_gather_object=true"),
    "eval_accumulation_steps": unrun(EVALUATION, "distil.eval_accumulation_steps=2"),
    "include_for_metrics": unrun(EVALUATION, "distil.include_for_metrics=[loss]"),
    "batch_eval_metrics": unrun(EVALUATION, "distil.batch_eval_metrics=true"),
    "save_only_model": sets("distil.save_only_model=true"),
    "save_strategy": sets("distil.save_strategy='no'"),
    "save_steps": sets("distil.save_steps=1"),
    "save_on_each_node": sets("distil.save_on_each_node=true"),
    "save_total_limit": sets("distil.save_total_limit=1"),
    "enable_jit_checkpoint": unrun("takes signals of the process", "distil.enable_jit_checkpoint=true"),
    "hub_token": sets("distil.hub_token=secret"),
    "hub_private_repo": sets("distil.hub_private_repo=true"),
    "hub_model_id": sets("distil.hub_model_id=me/other"),
    "hub_strategy": sets("distil.hub_strategy=end"),
    "hub_always_push": sets("distil.hub_always_push=true"),
    "hub_revision": sets("distil.hub_revision=other"),
    "load_best_model_at_end": unrun(REFUSED, "distil.load_best_model_at_end=true"),
    "metric_for_best_model": sets("distil.metric_for_best_model=loss"),
    "greater_is_better": sets("distil.greater_is_better=false"),
    "ignore_data_skip": sets("distil.ignore_data_skip=true"),
    "restore_callback_states_from_checkpoint": sets("distil.restore_callback_states_from_checkpoint=true"),
    "full_determinism": unrun("sets what the whole process computes with", "distil.full_determinism=true"),
    "seed": sets("distil.seed=5"),
    "data_seed": sets("distil.data_seed=5"),
    "use_cpu": sets("distil.use_cpu=true"),
    "accelerator_config": sets("distil.accelerator_config={{even_batches: false}}"),
    "parallelism_config": unrun(PROCESSES, "distil.parallelism_config=null"),
    "dataloader_drop_last": sets("distil.dataloader_drop_last=true"),
    "dataloader_num_workers": sets("distil.dataloader_num_workers=1"),
    "dataloader_pin_memory": sets("distil.dataloader_pin_memory=false"),
    "dataloader_persistent_workers": unrun(
        "workers are tried once", "distil.dataloader_num_workers=1", "distil.dataloader_persistent_workers=true"
    ),
    "dataloader_prefetch_factor": unrun(
        "workers are tried once", "distil.dataloader_num_workers=1", "distil.dataloader_prefetch_factor=3"
    ),
    "dataloader_multiprocessing_context": unrun(
        "workers are tried once", "distil.dataloader_num_workers=1", "distil.dataloader_multiprocessing_context=fork"
    ),
    "dataloader_in_order": sets("distil.dataloader_in_order=false"),
    "label_names": sets("distil.label_names=[labels]"),
    "train_sampling_strategy": sets("distil.train_sampling_strategy=sequential"),
    "length_column_name": sets("distil.length_column_name=duration"),
    "ddp_find_unused_parameters": sets("distil.ddp_find_unused_parameters=true"),
    "ddp_bucket_cap_mb": sets("distil.ddp_bucket_cap_mb=5"),
    "ddp_broadcast_buffers": sets("distil.ddp_broadcast_buffers=true"),
    "ddp_static_graph": sets("distil.ddp_static_graph=true"),
    "ddp_backend": unrun(PROCESSES, "distil.ddp_backend=gloo"),
    "ddp_timeout": sets("distil.ddp_timeout=100"),
    "fsdp": unrun(PROCESSES, "distil.fsdp=full_shard"),
    "fsdp_config": unrun(PROCESSES, "distil.fsdp_config={{limit_all_gathers: true}}"),
    "deepspeed": unrun(PROCESSES, "distil.deepspeed=config.json"),
    "debug": sets("distil.debug=underflow_overflow"),
    "skip_memory_metrics": sets("distil.skip_memory_metrics=false"),
    "do_eval": unrun(EVALUATION, "distil.do_eval=true"),
    "do_predict": unrun(EVALUATION, "distil.do_predict=true"),
    "local_rank": unrun(PROCESSES, "distil.local_rank=0"),
    "sortish_sampler": sets("distil.sortish_sampler=true"),
    "predict_with_generate": unrun(EVALUATION, "distil.predict_with_generate=true"),
    "generation_max_length": unrun(EVALUATION, "distil.generation_max_length=9"),
    "generation_num_beams": unrun(EVALUATION, "distil.generation_num_beams=2"),
    "generation_config": unrun(EVALUATION, "distil.generation_config={teacher}"),
    "peft": sets("distil.peft={{r: 2}}"),
}
TRAINING = {
    **{name: sets(f"distil.{name}={another_value(one)}") for name, one in OURS.items() if name not in CHOSEN},
    **CHOSEN,
}

CHANGES = {
    "name": sets("name=other"),
    "teacher": sets("teacher=other"),
    "auxiliary": sets("auxiliary=teacher"),
    "more_auxiliaries": sets("more_auxiliaries=[other]"),
    "references": unrun("for the report alone", "references=said.jsonl"),
    "language": sets("language=en"),
    "output": unrun("what every two runs differ by", "output={elsewhere}"),
    "rounds": sets("rounds=2", "adapt={{distil: {{max_steps: 1, num_train_epochs: 1, peft: null}}}}"),
    "adapt": unrun("of rounds that there are not", "adapt={{label: {{beam_size: 2}}}}"),
    "recordings.source": sets("recordings=two.jsonl"),
    "recordings.split": unrun(ROWS),
    "recordings.config": unrun(ROWS),
    "recordings.audio_column": sets("recordings={{source: two.jsonl, audio_column: other}}"),
    "recordings.reference_column": unrun("no recording that is labelled needs a reference"),
    "recordings.track": sets("recordings={{source: one.jsonl, track: 0}}"),
    "recordings.channel": sets("recordings={{source: one.jsonl, channel: 0}}"),
    "recordings.streaming": unrun(ROWS),
    "evaluation.source": sets("evaluation=null"),
    "evaluation.split": unrun(ROWS),
    "evaluation.config": unrun(ROWS),
    "evaluation.audio_column": unrun(ROWS),
    "evaluation.reference_column": sets("evaluation={{source: dev.jsonl, reference_column: spoken}}"),
    "evaluation.track": sets("evaluation={{source: dev.jsonl, track: 0}}"),
    "evaluation.channel": sets("evaluation={{source: dev.jsonl, channel: 0}}"),
    "evaluation.streaming": unrun(ROWS),
    "evaluation.join_by": sets("evaluation={{source: dev.jsonl, join_by: session}}"),
    "evaluation.join_pause": sets("evaluation={{source: dev.jsonl, join_by: session, join_pause: 1}}"),
    "evaluation.language": sets("evaluation={{again: {{source: dev.jsonl, language: en}}, dev: dev.jsonl}}"),
    "evaluation.normaliser": sets("evaluation={{source: dev.jsonl, language: en, normaliser: whisper-english}}"),
    "evaluation.benchmark_task": unrun(HUB),
    "label.engine": sets("label.engine=faster-whisper"),
    "label.address": unrun(RAY, "label.address=auto"),
    "label.workers": unrun(RAY, "label.workers=2"),
    "label.worker_cpus": unrun(RAY, "label.worker_cpus=2"),
    "label.worker_gpus": unrun(RAY, "label.worker_gpus=1"),
    "label.time_limit": sets("label.time_limit=500"),
    "label.shard_size": sets("label.shard_size=2"),
    "label.beam_size": sets("label.beam_size=2"),
    "label.condition_on_previous_text": sets("label.condition_on_previous_text=true"),
    "label.temperature_fallback": sets("label.temperature_fallback=false"),
    "label.batch_size": sets("label.batch_size=1"),
    "label.device": sets("label.device=cpu"),
    "label.dtype": sets("label.dtype=bfloat16"),
    "label.vad": unrun("the sound of these runs has no speech", "label.vad=true"),
    "label.prompt": sets(
        "label.prompt=今天講機器學習", "label.condition_on_previous_text=true", "validate.metric=full"
    ),
    "label.hotwords": sets("label.hotwords=Whisper"),
    "label.assistant": unrun("its own models are greedy, and it changes no text", "label.assistant=teacher"),
    "label.script": sets("label.script=simplified"),
    "label.measures": sets("label.measures=true"),
    "label.silence": sets("label.silence=0.5", "validate.metric=full"),
    "label.max_duration": sets("label.max_duration=5", "validate.metric=full"),
    "validate.engine": sets("validate.engine=faster-whisper"),
    "validate.address": unrun(RAY, "validate.address=auto"),
    "validate.workers": unrun(RAY, "validate.workers=2"),
    "validate.worker_cpus": unrun(RAY, "validate.worker_cpus=2"),
    "validate.worker_gpus": unrun(RAY, "validate.worker_gpus=1"),
    "validate.time_limit": sets("validate.time_limit=500"),
    "validate.metric": sets("validate.metric=full"),
    "validate.threshold": sets("validate.threshold=0.9"),
    "validate.espeak_language": sets("validate.espeak_language=en-us"),
    "validate.normalise_by": sets("validate.normalise_by=teacher"),
    "validate.unit": sets("validate.unit=segment"),
    "validate.keep": sets("validate.unit=segment", "validate.keep=mask"),
    **{f"validate.{judge.setting}": limited(judge) for judge in JUDGES},
    "validate.max_speaking_rate": sets("validate.max_speaking_rate=4"),
    "validate.combine": sets("validate.combine=all", "validate.max_speaking_rate=4"),
    "validate.weights": sets("validate.weights.distance=3.0", "validate.combine=sum", "validate.max_speaking_rate=4"),
    "validate.known_phrases": sets("validate.known_phrases=[今天]"),
    "validate.auxiliaries_by": sets("validate.auxiliaries_by=vote", "more_auxiliaries=[other]"),
    "validate.shard_size": sets("validate.shard_size=1"),
    "validate.beam_size": sets("validate.beam_size=2"),
    "validate.no_repeat_ngram_size": sets("validate.no_repeat_ngram_size=2"),
    "validate.batch_size": sets("validate.batch_size=1"),
    "validate.device": sets("validate.device=cpu"),
    "validate.dtype": sets("validate.dtype=bfloat16"),
    "mix.source": sets("mix=corpus.jsonl"),
    "mix.split": unrun(ROWS),
    "mix.config": unrun(ROWS),
    "mix.audio_column": unrun(ROWS),
    "mix.reference_column": unrun(ROWS),
    "mix.track": sets("mix={{source: corpus.jsonl, track: 0}}"),
    "mix.channel": sets("mix={{source: corpus.jsonl, channel: 0}}"),
    "mix.streaming": unrun(REFUSED),
    "mix.language": sets("mix={{source: corpus.jsonl, language: en}}"),
    "mix.share": sets("mix={{source: corpus.jsonl, share: 0.5}}"),
    "student.decoder_layers": sets("student.decoder_layers=[0, 1]"),
    "student.init": sets("student.init=auxiliary"),
    "student.encoder_layers": sets("student.encoder_layers=[0]"),
    "student.encoder_neurons": sets("student.encoder_neurons=4"),
    "student.language_mix": sets("student.language_mix.zh=0.5", "student.language_mix.en=0.5"),
    "targets.kind": sets("targets.kind=top"),
    "targets.k": sets("targets.kind=top", "targets.k=4"),
    "targets.batch_size": sets("targets.batch_size=1"),
    "targets.shard_size": sets("targets.shard_size=1"),
    "targets.device": sets("targets.device=cpu"),
    "targets.dtype": sets("targets.dtype=bfloat16"),
    "targets.enabled": sets("targets.enabled=false"),
    "evaluate.engine": sets("evaluate.engine=faster-whisper"),
    "evaluate.beam_size": sets("evaluate.beam_size=2"),
    "evaluate.condition_on_previous_text": sets("evaluate.condition_on_previous_text=true"),
    "evaluate.temperature_fallback": sets("evaluate.temperature_fallback=true"),
    "evaluate.batch_size": sets("evaluate.batch_size=2"),
    "evaluate.device": sets("evaluate.device=cpu"),
    "evaluate.dtype": sets("evaluate.dtype=bfloat16"),
    "evaluate.speed_runs": sets("evaluate.speed_runs=2"),
    "evaluate.speed_recordings": sets("evaluate.speed_recordings=1"),
    "evaluate.before": sets("evaluate.before=false"),
    "evaluate.adapted_from": sets("evaluate.adapted_from=auxiliary"),
    "evaluate.way_recordings": sets("evaluate.way_recordings=0"),
    "hub.repo_id": unrun(HUB, "hub.repo_id=me/student"),
    "hub.private": unrun(HUB, "hub.repo_id=me/student", "hub.private=false"),
    "hub.revision": unrun(HUB, "hub.repo_id=me/student", "hub.revision=other"),
    "hub.data_repo_id": unrun(HUB, "hub.repo_id=me/student", "hub.data_repo_id=me/chunks"),
    "hub.sample_output": sets("hub.sample_output=true"),
    "hub.ctranslate2": unrun(HUB, "hub.repo_id=me/student", "hub.ctranslate2=true"),
    "hub.ggml": unrun(HUB, "hub.repo_id=me/student", "hub.ggml=true"),
    "hub.merge": unrun(HUB, "hub.repo_id=me/student", "hub.merge=true"),
    "report.enabled": unrun("the page is no result", "report.enabled=true"),
    "report.student": unrun("the page is no result", "report.student=false"),
    "report.megabytes": unrun("the page is no result", "report.megabytes=1"),
    **{f"distil.{name}": change for name, change in TRAINING.items()},
}
