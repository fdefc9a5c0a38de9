"""Students: which layers they have, that the weights are the teacher's, and that they generate by themselves."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import WhisperForConditionalGeneration

from distillation.tiny_training import another
from k2d_hf import create_student
from k2d_hf.cli import main
from k2d_hf.errors import K2DError
from k2d_hf.models.parts import importance_by_weight, keep_neurons, largest_neurons, layer_indices, set_language


@pytest.mark.parametrize(
    ("layers", "total", "expected"),
    [
        (2, 32, [0, 31]),
        (1, 32, [0]),
        (3, 5, [0, 2, 4]),
        (4, 6, [0, 2, 3, 5]),
        (4, 4, [0, 1, 2, 3]),
        ([0, -1], 32, [0, 31]),
        ([-1, 0], 4, [3, 0]),
        ([0, 1, 3, 5], 6, [0, 1, 3, 5]),
    ],
)
def test_layers_as_a_count_or_by_index(layers, total, expected):
    assert layer_indices(layers, total) == expected


@given(st.integers(1, 64).flatmap(lambda total: st.tuples(st.integers(1, total), st.just(total))))
def test_spaced_layers_are_as_many_as_asked_for_and_reach_both_ends(case):
    count, total = case
    layers = layer_indices(count, total)
    assert len(layers) == len(set(layers)) == count
    assert layers == sorted(layers)
    assert (layers[0], layers[-1]) == (0, total - 1 if count > 1 else 0)


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        (0, "0 layers: the teacher has 4"),
        (5, "5 layers: the teacher has 4"),
        ([], "no layer to copy"),
        ([0, 4], "no layer 4; the teacher has 4"),
        ([-5], "no layer -5"),
        ([1, 1], "same layer twice"),
        ([3, -1], "same layer twice"),
    ],
)
def test_impossible_layers_are_named(tiny_whisper, layers, message):
    with pytest.raises(K2DError, match=f"^decoder_layers: .*{message}"):
        create_student(tiny_whisper, decoder_layers=layers)


def test_impossible_encoder_layers_are_named(tiny_whisper):
    with pytest.raises(K2DError, match="^encoder_layers: .*no layer 2"):
        create_student(tiny_whisper, encoder_layers=[0, 2])


@pytest.mark.parametrize("neurons", [[list(range(64)), list(range(64))], [[63, 5], [0, 1]]])
def test_neurons_of_the_encoder_are_the_teachers_by_index(tiny_whisper, neurons):
    student = keep_neurons(create_student(tiny_whisper, 2, [1, 0]), neurons)
    assert student.config.encoder_ffn_dim == len(neurons[0])
    for ours, old, kept in zip(student.model.encoder.layers, [1, 0], neurons, strict=True):
        theirs = tiny_whisper.model.encoder.layers[old]
        states = torch.randn(1, 3, 32, generator=torch.Generator().manual_seed(0))
        activations = theirs.fc1(states)
        silent = [index for index in range(64) if index not in kept]
        activations[..., silent] = 0  # gelu(0) is 0
        expected = theirs.fc2(torch.nn.functional.gelu(activations))
        assert torch.allclose(ours.fc2(torch.nn.functional.gelu(ours.fc1(states))), expected, atol=1e-5)
        assert torch.equal(ours.self_attn.q_proj.weight, theirs.self_attn.q_proj.weight)


@pytest.mark.parametrize(
    ("neurons", "message"),
    [
        ([[0, 1]], "lists for 1 layers, and the layers copied are 2"),
        ([[0, 1], [2]], "1 to 2 neurons a layer; give each as many, at least one"),
        ([[], []], "0 to 0 neurons a layer; give each as many, at least one"),
        ([[0], [64]], r"no neuron 64 \(list 1\); a layer of the teacher has 64, 0 to 63"),
        ([[-1], [0]], r"no neuron -1 \(list 0\)"),
        ([[0, 1], [2, 2]], "the same neuron twice in list 1"),
    ],
)
def test_impossible_neurons_are_named(tiny_whisper, neurons, message):
    with pytest.raises(K2DError, match=f"^encoder_neurons: {message}"):
        keep_neurons(create_student(tiny_whisper), neurons)


@pytest.mark.parametrize(
    ("importance", "count", "expected"),
    [
        ([[0.1, 3.0, 2.0, 0.5]], 2, [[1, 2]]),
        ([[3.0, 1.0, 2.0], [1.0, 1.0, 1.0]], 2, [[0, 2], [0, 1]]),  # the first of the same importance
        ([[1.0, 2.0]], 2, [[0, 1]]),
    ],
)
def test_the_neurons_of_greatest_importance_in_order(importance, count, expected):
    assert largest_neurons([torch.tensor(one) for one in importance], count) == expected


def test_a_neuron_matters_by_what_comes_in_times_what_goes_out(tiny_whisper):
    student = create_student(tiny_whisper, 2, [1])
    layer = student.model.encoder.layers[0]
    with torch.no_grad():
        layer.fc1.weight[:, :], layer.fc2.weight[:, :] = 0, 0
        layer.fc1.weight[0, :2] = torch.tensor([3.0, 4.0])
        layer.fc2.weight[5:7, 0] = torch.tensor([0.6, 0.8])
        layer.fc1.weight[7, 0], layer.fc1.bias[7] = 100, 100  # what it says reaches nobody
        layer.fc2.weight[0, 8] = 100  # it hears nothing
    (importance,) = importance_by_weight(student)
    assert importance[0] == pytest.approx(5)
    assert importance[1:].count_nonzero() == 0


def test_a_student_keeps_that_many_neurons_and_says_what_it_would_with_the_others_silent(tiny_whisper):
    student = create_student(tiny_whisper, 2, [1, 0], encoder_neurons=16)
    assert student.config.encoder_ffn_dim == 16
    assert student.config.decoder_ffn_dim == tiny_whisper.config.decoder_ffn_dim
    silenced = create_student(tiny_whisper, 2, [1, 0])
    kept = largest_neurons(importance_by_weight(silenced), 16)
    for layer, indices in zip(silenced.model.encoder.layers, kept, strict=True):
        others = [index for index in range(64) if index not in indices]
        layer.fc2.weight.data[:, others] = 0
    features = torch.randn(1, 80, 3000, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        states, expected = (one.eval().model.encoder(features).last_hidden_state for one in (student, silenced))
    assert torch.allclose(states, expected, atol=1e-4)
    assert tiny_whisper.config.encoder_ffn_dim == 64


def test_all_neurons_are_the_student_without_that_setting(tiny_whisper):
    ours, theirs = (create_student(tiny_whisper, encoder_neurons=count).state_dict() for count in (64, None))
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


def test_the_command_writes_a_checkpoint_with_fewer_neurons(tiny_whisper_dir, tmp_path):
    command = ["student", str(tiny_whisper_dir), "--encoder-neurons", "16", "--output", str(tmp_path / "student")]
    assert main([*command, "--quiet"]) == 0
    loaded = WhisperForConditionalGeneration.from_pretrained(tmp_path / "student")
    assert loaded.model.encoder.layers[1].fc1.weight.shape == (16, 32)
    assert main([*command[:3], "65", *command[4:-1], str(tmp_path / "no")]) == 1
    assert not (tmp_path / "no").exists()


@pytest.mark.parametrize("count", [0, -1, 65])
def test_an_impossible_number_of_neurons_is_named(tiny_whisper, count):
    with pytest.raises(K2DError, match=f"^encoder_neurons: {count} neurons: a layer of the teacher has 64, so choose"):
        create_student(tiny_whisper, encoder_neurons=count)


def test_a_teacher_that_is_no_whisper_is_an_error():
    with pytest.raises(K2DError, match="teacher is a Linear"):
        create_student(torch.nn.Linear(2, 2))


@pytest.mark.parametrize("decoder", [[0, 3], [2], [3, 1, 0]])
@pytest.mark.parametrize("encoder", [[0, 1], [1]])
def test_layers_are_the_teachers_by_index_and_all_else_is_whole(tiny_whisper, decoder, encoder):
    student = create_student(tiny_whisper, decoder, encoder)
    theirs, ours = tiny_whisper.model, student.model
    for kind, indices in (("decoder", decoder), ("encoder", encoder)):
        layers = getattr(ours, kind).layers
        assert len(layers) == len(indices) == getattr(student.config, f"{kind}_layers")
        for new, old in enumerate(indices):
            original = getattr(theirs, kind).layers[old].state_dict()
            assert all(torch.equal(value, original[name]) for name, value in layers[new].state_dict().items())
            assert layers[new].self_attn.layer_idx == new or kind == "encoder"
    rest = {k: v for k, v in tiny_whisper.state_dict().items() if ".layers." not in k}
    mine = {k: v for k, v in student.state_dict().items() if ".layers." not in k}
    assert rest.keys() == mine.keys()
    assert all(torch.equal(rest[name], mine[name]) for name in rest)


def test_the_default_is_the_papers_first_and_last_layer_under_the_whole_encoder(tiny_whisper):
    student = create_student(tiny_whisper)
    expected = tiny_whisper.model.decoder.layers[3].state_dict()
    assert (student.config.decoder_layers, student.config.encoder_layers) == (2, 2)
    assert torch.equal(student.model.decoder.layers[1].fc1.weight, expected["fc1.weight"])


def test_with_all_layers_the_student_says_what_the_teacher_says(tiny_whisper):
    student = create_student(tiny_whisper, decoder_layers=4)
    batch = {
        "input_features": torch.randn(1, 80, 3000, generator=torch.Generator().manual_seed(0)),
        "decoder_input_ids": torch.tensor([[50258, 50260, 50359, 50363, 11]]),
    }
    with torch.no_grad():
        torch.testing.assert_close(student(**batch).logits, tiny_whisper(**batch).logits)


def test_embeddings_are_tied_and_nothing_else_is_shared_with_the_teacher(tiny_whisper):
    student = create_student(tiny_whisper)
    assert student.proj_out.weight is student.model.decoder.embed_tokens.weight
    theirs = {tensor.data_ptr() for tensor in tiny_whisper.state_dict().values()}
    assert not theirs & {tensor.data_ptr() for tensor in student.state_dict().values()}


def test_the_teacher_is_left_as_it_was(tiny_whisper):
    weights = copy.deepcopy(tiny_whisper.state_dict())
    config, generation = tiny_whisper.config.to_dict(), tiny_whisper.generation_config.to_dict()
    student = create_student(tiny_whisper, [0, 3], [1], language="en")
    with torch.no_grad():
        for parameter in student.parameters():
            parameter.zero_()
    assert all(torch.equal(value, weights[name]) for name, value in tiny_whisper.state_dict().items())
    assert tiny_whisper.config.to_dict() == config
    assert tiny_whisper.generation_config.to_dict() == generation


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ([0, 3], [[0, 1], [1, 1]]),
        ([2, 3], [[0, 0], [1, 1]]),
        ([3, 0], [[1, 1], [0, 1]]),
        ([1], [[0, 0], [0, 1]]),  # none is left: all heads of the last half of the layers
    ],
)
def test_bug_12_alignment_heads_point_to_layers_that_the_student_has(tiny_whisper, layers, expected):
    assert tiny_whisper.generation_config.alignment_heads == [[0, 1], [2, 0], [3, 1]]
    assert create_student(tiny_whisper, layers).generation_config.alignment_heads == expected


def test_bug_12_a_student_gives_timestamps_of_tokens(tiny_whisper):
    student = create_student(tiny_whisper, language="zh")
    output = student.generate(
        torch.zeros(1, 80, 3000),
        return_timestamps=True,
        return_token_timestamps=True,
        max_new_tokens=4,
        num_frames=torch.tensor([3000]),
    )
    assert len(output["token_timestamps"]) == 1


@pytest.mark.parametrize(("given", "expected"), [("en", "en"), (None, "zh")])
def test_language_and_task_are_set_and_no_ids_are_forced(tiny_whisper, given, expected):
    tiny_whisper.generation_config.language = "zh"
    tiny_whisper.generation_config.forced_decoder_ids = [[1, 50259], [2, 50359]]
    settings = create_student(tiny_whisper, language=given, task="translate").generation_config
    assert (settings.language, settings.task, settings.forced_decoder_ids) == (expected, "translate", None)


def test_an_english_only_teacher_gets_neither_language_nor_task(tiny_whisper):
    tiny_whisper.generation_config.is_multilingual = False
    settings = create_student(tiny_whisper, language="en").generation_config
    assert getattr(settings, "language", None) is None
    assert getattr(settings, "task", None) is None
    student = create_student(tiny_whisper)
    set_language(student, "en", "transcribe")
    assert getattr(student.generation_config, "language", None) is None


def test_a_half_precision_teacher_gives_a_float32_student(tiny_whisper, tmp_path):
    student = create_student(tiny_whisper.half())
    assert {parameter.dtype for parameter in student.parameters()} == {torch.float32}
    student.save_pretrained(tmp_path)
    loaded = WhisperForConditionalGeneration.from_pretrained(tmp_path)
    assert loaded.dtype == torch.float32


def test_a_student_survives_saving_and_loading(tiny_whisper_dir, tmp_path):
    student = create_student(str(tiny_whisper_dir), [0, 3], language="zh")
    student.save_pretrained(tmp_path)
    loaded = WhisperForConditionalGeneration.from_pretrained(tmp_path)
    weights = student.state_dict()
    assert loaded.state_dict().keys() == weights.keys()
    assert all(torch.equal(value, weights[name]) for name, value in loaded.state_dict().items())
    assert loaded.config.decoder_layers == 2
    assert loaded.proj_out.weight is loaded.model.decoder.embed_tokens.weight
    settings = loaded.generation_config
    assert (settings.language, settings.task, settings.alignment_heads) == ("zh", "transcribe", [[0, 1], [1, 1]])


def test_untied_embeddings_stay_apart_as_in_the_teacher(tiny_whisper):
    teacher = another(tiny_whisper, tie_word_embeddings=False)
    student = create_student(teacher)
    assert torch.equal(student.proj_out.weight, teacher.proj_out.weight)
    assert not torch.equal(student.proj_out.weight, student.model.decoder.embed_tokens.weight)
