"""Training in miniature, for the tests of the trainer: models, trainers, and the loss written plainly in float64."""

import copy

import torch
from transformers import WhisperForConditionalGeneration

from k2d_hf import K2DTrainer, K2DTrainingArguments

OWN = {"teacher_model", "auxiliary_model", "peft_config", "compute_metrics"}


def another(model, *, seed=1, **changes):
    """A Whisper of the same shape but for `changes`, with other random weights; its parameters need gradients."""
    torch.manual_seed(seed)
    config = copy.deepcopy(model.config)
    config.update(changes)
    other = WhisperForConditionalGeneration(config).eval()
    other.generation_config = copy.deepcopy(model.generation_config)
    return other


def trainer_for(student, chunks, processor, folder, *, eval_dataset=None, collator=None, callbacks=None, **settings):
    """A trainer that writes nothing but logs, one of every step, on the CPU; what is in `OWN` goes to it."""
    own = {name: settings.pop(name) for name in OWN & settings.keys()}
    defaults = {"use_cpu": True, "report_to": "none", "disable_tqdm": True, "save_strategy": "no", "logging_steps": 1}
    plain = {"keep_encoder_states": False, "per_device_train_batch_size": 2, "lr_scheduler_type": "constant"}
    arguments = K2DTrainingArguments(str(folder), **{**defaults, **plain, **settings})
    return K2DTrainer(
        student,
        arguments,
        train_dataset=chunks,
        eval_dataset=eval_dataset,
        processing_class=processor,
        data_collator=collator,
        callbacks=callbacks,
        **own,
    )


def log_probabilities(model, batch, temperature):
    """Of all tokens at all positions, [B, L, V] float64, by the model's own forward pass."""
    model = copy.deepcopy(model).double().eval()
    with torch.no_grad():
        logits = model(
            input_features=batch["input_features"].double(), decoder_input_ids=batch["decoder_input_ids"]
        ).logits
    return torch.log_softmax(logits / temperature, -1)


def plain_loss(batch, student, teacher=None, auxiliary=None, *, ce=0.8, kl=1.0, auxiliary_weight=0.0, temperature=2.0):
    """Sum of the formula over supervised tokens, from all logits of the models in float64, and the number of tokens."""
    weights = batch.get("chunk_weights", torch.ones(len(batch["labels"])))[:, None]
    weights = weights * batch.get("token_weights", torch.ones(batch["labels"].shape))
    at_one = log_probabilities(student, batch, 1.0)
    softened = log_probabilities(student, batch, temperature)
    targets = [
        (weight, log_probabilities(model, batch, temperature))
        for weight, model in ((kl, teacher), (auxiliary_weight, auxiliary))
        if model is not None
    ]
    total, tokens = 0.0, 0
    for row, column in (batch["labels"] != -100).nonzero().tolist():
        token = -ce * at_one[row, column, batch["labels"][row, column]]
        for weight, target in targets:
            p, q = target[row, column], softened[row, column]
            token += weight * temperature**2 * (p.exp() * (p - q)).sum()
        total += float(weights[row, column]) * float(token)
        tokens += 1
    return total, tokens
