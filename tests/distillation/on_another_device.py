"""Forward and backward of every variant of the loss on a device that is not the CPU; prints one JSON object.

torch's backend for Python stands in for an accelerator, and fake tensors for its memory: nothing is computed, but an
operation between two devices raises, as it would there. In a process of its own, as torch takes the backend for good.
"""

import contextlib
import json
import os
import sys
from types import SimpleNamespace

import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.overrides import TorchFunctionMode
from torch.utils.backend_registration import _DummyBackendModule, _setup_privateuseone_for_python_backend
from transformers import WhisperConfig, WhisperForConditionalGeneration

from k2d_hf.distillation.loss import blockwise as blockwise_loss
from k2d_hf.distillation.trainer import K2DTrainer

DEVICE = "elsewhere"
CHUNKS, TOKENS, SUPERVISED, VOCABULARY, WIDTH, K = 2, 150, 290, 97, 16, 3


class Backend(_DummyBackendModule):
    """As torch asks it: what autocast may turn numbers into."""

    @staticmethod
    def get_amp_supported_dtype():
        return [torch.bfloat16, torch.float16]


class KnownPositions(TorchFunctionMode):
    """Answers how many positions are supervised, which fake tensors do not know; their values are never read.

    That is the one question of a step whose answer a GPU is waited for; a mask as an index asks it again, and raises.
    """

    asked = 0

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is torch.Tensor.nonzero:
            self.asked += 1
            return tuple(torch.zeros(SUPERVISED, dtype=torch.long, device=args[0].device) for _ in range(args[0].dim()))
        return func(*args, **(kwargs or {}))


def whisper(width=WIDTH, mel_bins=4):
    """A Whisper of next to nothing, on the device."""
    config = WhisperConfig(
        vocab_size=VOCABULARY, num_mel_bins=mel_bins, d_model=width, encoder_layers=1, decoder_layers=1,
        encoder_attention_heads=2, decoder_attention_heads=2, encoder_ffn_dim=width, decoder_ffn_dim=width,
        max_source_positions=8, max_target_positions=TOKENS, pad_token_id=0, bos_token_id=0, eos_token_id=0,
        decoder_start_token_id=1,
    )  # fmt: skip
    model = WhisperForConditionalGeneration(config)  # making it there asks for a value, and fake tensors do not move
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                there = torch.empty_like(parameter, device=DEVICE)
                module._parameters[name] = torch.nn.Parameter(there, requires_grad=parameter.requires_grad)
        assert not module._buffers
    model.tie_weights()
    return model


VARIANTS = {  # weights of the loss, what takes the teacher's place, further inputs
    "ce": {"kl_weight": 0.0},
    "teacher": {},
    "teacher with an encoder of its own": {"shares_encoder": False},
    "auxiliary": {"auxiliary_weight": 0.5},
    "auxiliary alone": {"kl_weight": 0.0, "auxiliary_weight": 0.5},
    "hidden": {"stored": "hidden"},
    "top": {"stored": "top"},
    "top and auxiliary": {"stored": "top", "auxiliary_weight": 0.5},
    "weights": {"chunk_weights": True},
    "encoder states": {"encoder_states": True},
    "trained encoder": {"frozen": False},
    "reverse": {"divergence": "reverse"},
    "jensen-shannon, top": {"divergence": "jensen-shannon", "stored": "top"},
    "encoder_weight": {"frozen": False, "encoder_weight": 1.0},
    "encoder_weight and weights": {"frozen": False, "encoder_weight": 1.0, "chunk_weights": True},
}


def trainer_for(student, variant, mixed_precision):
    """A trainer as far as the loss knows it: the rest asks accelerate for a device that is there."""
    settings = {"ce_weight": 0.8, "kl_weight": 1.0, "auxiliary_weight": 0.0, "encoder_weight": 0.0, "temperature": 2.0}
    settings |= {"divergence": "forward", "on_policy": 0.0}
    stored = variant.get("stored")
    trainer = object.__new__(K2DTrainer)
    trainer.args = SimpleNamespace(**{name: variant.get(name, value) for name, value in settings.items()})
    trainer.teacher = None if stored or not trainer.args.kl_weight else whisper().eval().requires_grad_(False)
    trainer.auxiliary = whisper(8).eval().requires_grad_(False) if trainer.args.auxiliary_weight else None
    trainer.stored = ["teacher"] if stored else []
    trainer.stored_embedding = torch.zeros(VOCABULARY, WIDTH, device=DEVICE) if stored == "hidden" else None
    trainer.encoder_is_frozen = variant.get("frozen", True)
    trainer.shares_encoder = trainer.encoder_is_frozen and variant.get("shares_encoder", trainer.teacher is not None)
    trainer.is_fsdp_enabled = False
    trainer.accelerator = SimpleNamespace(
        unwrap_model=lambda model: model,
        mixed_precision="no" if mixed_precision is None else "bf16",
        autocast=contextlib.nullcontext,  # which a backend for Python does not have
    )
    if trainer.encoder_is_frozen:
        student.freeze_encoder()
    return trainer


def batch_for(variant):
    """A batch as the collator gives it, on the device."""

    def there(*shape, dtype=torch.float32):
        return torch.zeros(*shape, dtype=dtype, device=DEVICE)

    ids = {"decoder_input_ids": (CHUNKS, TOKENS), "labels": (CHUNKS, TOKENS)}
    batch = {name: there(*shape, dtype=torch.long) for name, shape in ids.items()}
    batch["input_features"] = there(CHUNKS, 4, 16)
    if variant.get("encoder_states"):
        batch["encoder_states"] = there(CHUNKS, 8, WIDTH, dtype=torch.float16)
    if variant.get("chunk_weights"):
        batch["chunk_weights"] = there(CHUNKS)
    if variant.get("stored") == "hidden":
        batch["teacher_hidden"] = there(CHUNKS, TOKENS, WIDTH, dtype=torch.float16)
    if variant.get("stored") == "top":
        batch["teacher_top_ids"] = there(CHUNKS, TOKENS, K, dtype=torch.int32)
        batch["teacher_top_logprobs"] = there(CHUNKS, TOKENS, K, dtype=torch.float16)
    return batch


def step(variant, mixed_precision, positions):
    """Forward and backward; the devices of the sums and of all gradients."""
    positions.asked = 0
    student = whisper()
    trainer = trainer_for(student, variant, mixed_precision)
    sums = trainer.loss_sums(student, batch_for(variant))
    sums.total.backward()
    found = {str(getattr(sums, name).device.type) for name in (*blockwise_loss.SUMS, "encoder_mse")}
    trained = [parameter for parameter in student.parameters() if parameter.requires_grad]
    assert all(parameter.grad is not None for parameter in trained)
    assert sums.tokens == SUPERVISED
    assert positions.asked == 1, f"the device is waited for {positions.asked} times"
    return sorted(found | {parameter.grad.device.type for parameter in trained})


def main():
    """Every variant; a mistake on purpose first, which must raise."""
    _setup_privateuseone_for_python_backend(rename=DEVICE, backend_module=Backend())
    found = {}
    with FakeTensorMode(), KnownPositions() as positions:
        try:
            torch.zeros(2, device=DEVICE) + torch.zeros(2)
        except RuntimeError as error:
            found["mixed devices"] = str(error)
        for name, variant in VARIANTS.items():
            for precision in (None, "bf16"):
                try:
                    found[f"{name}, {precision}"] = step(variant, precision, positions)
                except Exception as error:
                    if "--debug" in sys.argv:
                        raise
                    found[f"{name}, {precision}"] = f"{type(error).__name__}: {error}"[:300]
    print(json.dumps(found))


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    os._exit(0)  # torch's threads of backward for that device now and then abort the interpreter's end
