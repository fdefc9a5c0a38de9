"""Models of the loss: what they must be, whose encoder is whose, and hidden states that make the model's own logits."""

import copy

import pytest
import torch
from peft import LoraConfig

from distillation.tiny_training import another
from k2d_hf import create_student
from k2d_hf.distillation.models import (
    base_whisper,
    decode,
    encode,
    find_processor,
    is_frozen,
    load_for_loss,
    output_embedding,
    same_weights,
    student_hidden,
    with_adapters,
)
from k2d_hf.errors import K2DError


@pytest.fixture(scope="module")
def batch():
    """Two rows of features and decoder inputs."""
    generator = torch.Generator().manual_seed(0)
    return {
        "input_features": torch.randn(2, 80, 3000, generator=generator),
        "decoder_input_ids": torch.tensor(
            [[50361, 11, 50258, 50260, 50359, 50363, 7], [50258, 50260, 50359, 3, 4, 5, 6]]
        ),
    }


def test_bug_02_equal_sizes_are_not_equal_encoders(tiny_whisper):
    other = another(tiny_whisper)
    assert other.config.d_model == tiny_whisper.config.d_model
    assert not same_weights(tiny_whisper.model.encoder, other.model.encoder)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_bug_02_a_copied_encoder_is_the_same_in_any_number_format(tiny_whisper, dtype):
    student = create_student(tiny_whisper.to(dtype))
    assert same_weights(student.model.encoder, tiny_whisper.model.encoder)
    assert same_weights(tiny_whisper.model.encoder, student.model.encoder)


def test_bug_02_one_weight_makes_an_encoder_another(tiny_whisper):
    other = copy.deepcopy(tiny_whisper)
    with torch.no_grad():
        other.model.encoder.layers[1].fc2.bias[3] += 1e-3
    assert not same_weights(tiny_whisper.model.encoder, other.model.encoder)


def test_fewer_layers_are_another_encoder(tiny_whisper):
    assert not same_weights(create_student(tiny_whisper, 2, 1).model.encoder, tiny_whisper.model.encoder)


def test_frozen_means_every_parameter(tiny_whisper):
    assert not is_frozen(tiny_whisper.model.encoder)
    tiny_whisper.freeze_encoder()
    assert is_frozen(tiny_whisper.model.encoder)
    assert not is_frozen(tiny_whisper)


@pytest.mark.parametrize("shared", [True, False])
def test_hidden_states_times_the_embedding_are_the_models_logits(tiny_whisper, batch, shared):
    with torch.no_grad():
        expected = tiny_whisper(**batch).logits
        states = encode(tiny_whisper, batch["input_features"])
        hidden, own = student_hidden(tiny_whisper, tiny_whisper, batch, states if shared else None)
        helping = decode(tiny_whisper, states, batch["decoder_input_ids"])
    torch.testing.assert_close(own, states, rtol=1e-4, atol=1e-4)
    for states in (hidden, helping):
        torch.testing.assert_close(states @ output_embedding(tiny_whisper).T, expected, rtol=1e-4, atol=1e-4)
    assert isinstance(tiny_whisper.proj_out, torch.nn.Linear)  # back in its place


def test_the_head_comes_back_after_an_error(tiny_whisper):
    with pytest.raises(KeyError):
        student_hidden(tiny_whisper, tiny_whisper, {}, None)
    assert isinstance(tiny_whisper.proj_out, torch.nn.Linear)


def test_a_frozen_encoder_runs_without_gradient_or_dropout(tiny_whisper, batch):
    tiny_whisper.config.dropout = 0.5
    model = another(tiny_whisper, dropout=0.5).train()
    one, two = (encode(model, batch["input_features"]) for _ in range(2))
    assert torch.equal(one, two)
    assert not one.requires_grad
    assert model.model.encoder.training


def test_the_whisper_inside_is_found(tiny_whisper):
    adapted = with_adapters(tiny_whisper, LoraConfig(target_modules=["q_proj"]), freeze_encoder=True)
    assert base_whisper(tiny_whisper) is tiny_whisper
    assert base_whisper(adapted) is tiny_whisper
    with pytest.raises(K2DError, match="Linear is not a Whisper"):
        base_whisper(torch.nn.Linear(2, 2))


@pytest.mark.parametrize(("freeze", "expected"), [(True, False), (False, True)])
def test_a_frozen_encoder_gets_no_adapters(tiny_whisper, freeze, expected):
    config = LoraConfig(target_modules=["q_proj", "v_proj"])
    adapted = with_adapters(tiny_whisper, config, freeze_encoder=freeze)
    names = [name for name, _ in adapted.named_parameters() if "lora_" in name]
    assert any("decoder" in name for name in names)
    assert any("model.encoder" in name for name in names) is expected
    assert config.exclude_modules is None  # the caller's is left as it was


def test_an_adapted_output_layer_is_an_error(tiny_whisper):
    adapted = with_adapters(tiny_whisper, LoraConfig(target_modules=["proj_out"]), freeze_encoder=True)
    with pytest.raises(K2DError, match="proj_out must stay a plain linear layer"):
        output_embedding(base_whisper(adapted))


def test_a_model_of_the_loss_is_frozen_and_at_rest(tiny_whisper):
    frozen = load_for_loss("teacher", another(tiny_whisper).train(), tiny_whisper, weight=1.0)
    assert is_frozen(frozen)
    assert not frozen.training


def test_a_model_of_the_loss_may_be_a_checkpoint(tiny_whisper, tiny_whisper_dir):
    assert is_frozen(load_for_loss("teacher", str(tiny_whisper_dir), tiny_whisper, weight=1.0))


def test_a_model_of_the_loss_without_weight_is_not_loaded(tiny_whisper):
    assert load_for_loss("teacher", "no/such-model", tiny_whisper, weight=0.0) is None


@pytest.mark.parametrize(("name", "setting"), [("teacher", "kl_weight"), ("auxiliary", "auxiliary_weight")])
def test_a_missing_model_is_an_error(tiny_whisper, name, setting):
    with pytest.raises(K2DError, match=f"{setting} is 0.5: give {name}_model, or set {setting} to 0"):
        load_for_loss(name, None, tiny_whisper, weight=0.5)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vocab_size": 51866}, "auxiliary has 51866 tokens, student 51865"),
        ({"vocab_size": 51864}, "auxiliary has 51864 tokens, student 51865"),
        ({"num_mel_bins": 128}, "auxiliary has 128 mel bins, student 80"),
    ],
)
def test_a_model_of_the_loss_that_cannot_be_mixed_is_an_error(tiny_whisper, changes, message):
    with pytest.raises(K2DError, match=message):
        load_for_loss("auxiliary", another(tiny_whisper, **changes), tiny_whisper, weight=1.0)


def test_the_processor_comes_from_the_first_checkpoint_that_has_one(tiny_whisper, tiny_whisper_dir, tmp_path):
    tiny_whisper.save_pretrained(tmp_path)
    for sources in [(str(tiny_whisper_dir),), (tmp_path, tiny_whisper_dir), (tiny_whisper, None)]:
        assert len(find_processor(*sources).tokenizer) > 51000
    with pytest.raises(K2DError, match="give processing_class"):
        find_processor(tmp_path, None)
