"""The one file that whisper.cpp reads, written from the checkpoint tensor by tensor.

The format has no place for the default language, the beams and the thresholds: they are given to the engine.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from k2d_hf.errors import K2DError
from k2d_hf.files.json_files import read_json
from k2d_hf.files.storage import enough_room
from k2d_hf.formatting import error_message, quote, short_name
from k2d_hf.models.checkpoint import weight_files
from k2d_hf.models.exporting import ExportFormat
from k2d_hf.models.processors import load_tokenizer

if TYPE_CHECKING:
    import numpy as np

    from k2d_hf.models.ggml_file import NumberFormat

logger = logging.getLogger(__name__)

FILE = "ggml-model.bin"
DEFAULT = "f16"
# Plain tokens by vocabulary: whisper.cpp counts languages and special tokens from the size of the whole.
_PLAIN = {51864: 50256, 51865: 50257, 51866: 50257}
_SIZES = (
    *("vocab_size", "max_source_positions", "d_model", "encoder_attention_heads", "encoder_layers"),
    *("max_target_positions", "d_model", "decoder_attention_heads", "decoder_layers", "num_mel_bins"),
)
_FIXED = {"activation_function": "gelu", "scale_embedding": False, "tie_word_embeddings": True}
_RENAMED = (
    (r"\.layers\.", ".blocks."),
    (r"encoder_attn_layer_norm", "cross_attn_ln"),
    (r"self_attn_layer_norm", "attn_ln"),
    (r"final_layer_norm", "mlp_ln"),
    (r"encoder_attn\.", "cross_attn."),
    (r"self_attn\.", "attn."),
    (r"q_proj", "query"),
    (r"k_proj", "key"),
    (r"v_proj", "value"),
    (r"out_proj", "out"),
    (r"\.fc1\.", ".mlp.0."),
    (r"\.fc2\.", ".mlp.2."),
    (r"^encoder\.layer_norm", "encoder.ln_post"),
    (r"^decoder\.layer_norm", "decoder.ln"),
    (r"embed_positions\.weight", "positional_embedding"),
    (r"embed_tokens", "token_embedding"),
)
_AT_ONCE = 1 << 22  # numbers that are converted at a time
_FIX = "export the student that k2d distil or k2d run wrote"


def export_ggml(checkpoint_dir: str | Path, output_dir: str | Path, *, quantization: str | None = None) -> Path:
    """Write a folder with `ggml-model.bin`, the file of a transformers Whisper checkpoint for whisper.cpp.

    Feed-forward layers with fewer neurons than whisper.cpp expects, four times the width of the model, are filled up
    with neurons that add nothing.

    Args:
        checkpoint_dir: folder of the checkpoint.
        output_dir: folder to write; it must be empty or not exist.
        quantization: number format of the matrices (f16, q8_0, q5_0); None is f16. Convolutions are in f16 and vectors
            and positions in f32 in each of them, as whisper.cpp expects.

    Raises:
        K2DError: if the checkpoint is no Whisper or none that whisper.cpp can hold, the number format is unknown, or
            the output folder holds something.
    """
    return FORMAT.export(checkpoint_dir, output_dir, quantization=quantization)


def _fill(checkpoint: Path, folder: Path, quantization: str | None) -> None:
    from k2d_hf.models.ggml_file import BLOCK, NUMBER_FORMATS, write_head, write_tensor

    config = read_json(checkpoint / "config.json")
    _check_config(config, checkpoint)
    if config["decoder_layers"] == 2 and config["vocab_size"] != 51866:
        logger.warning("whisper.cpp decodes a student of two decoder layers without timestamps, in windows of 30 s")
    numbers = NUMBER_FORMATS[quantization or DEFAULT]
    filters, tokens = _mel_filters(checkpoint, config["num_mel_bins"]), _plain_tokens(checkpoint, config["vocab_size"])
    with ExitStack() as stack, enough_room(folder / FILE), (folder / FILE).open("wb") as out:
        write_head(out, [config[name] for name in _SIZES], numbers, filters, tokens)
        stored = _stored_tensors(checkpoint, stack)
        for name, shape in _expected(config).items():
            if name not in stored:
                raise K2DError(f"{checkpoint}: its weights lack {name}; {_FIX}")
            tensor = _Tensor(stored[name], name, checkpoint)
            full = _full_shape(shape, config["d_model"], name)
            if tensor.shape != shape:
                raise K2DError(f"{checkpoint}: {name} has shape {tensor.shape}, and {shape} in its config.json; {_FIX}")
            kept = _numbers_of(name, full, numbers)
            if kept.blocks and full[-1] % BLOCK:
                raise K2DError(f"quantization {kept.name}: rows of {full[-1]} are no multiple of {BLOCK}; give f16")
            written = (*full, 1) if re.fullmatch(r"encoder\.conv\d\.bias", name) else full
            write_tensor(out, _name_in_file(name), written, kept, tensor.rows(full, kept))


def _check_config(config: Mapping[str, Any], checkpoint: Path) -> None:
    """K2DError where the model is no Whisper, or one that whisper.cpp does not hold."""
    if (kind := config.get("model_type")) != "whisper":
        raise K2DError(f"{checkpoint}: a {quote(kind)} model, not Whisper; give a Whisper checkpoint")
    names = (*_SIZES, "encoder_ffn_dim", "decoder_ffn_dim")
    for name in names:
        if type(config.get(name)) is not int or config[name] < 1:
            raise K2DError(f"{checkpoint}/config.json: {name} is {quote(config.get(name))}, not a number; {_FIX}")
    if config["vocab_size"] not in _PLAIN:
        known = ", ".join(map(str, _PLAIN))
        raise K2DError(f"{checkpoint}: a vocabulary of {config['vocab_size']}; whisper.cpp reads those of {known}")
    for name, value in _FIXED.items():
        if config.get(name, value) != value:
            raise K2DError(f"{checkpoint}: {name} is {quote(config[name])}; whisper.cpp reads models with {value} only")
    for name in ("encoder_ffn_dim", "decoder_ffn_dim"):
        if config[name] > 4 * config["d_model"]:
            most = f"whisper.cpp reads at most {4 * config['d_model']}, four times d_model"
            raise K2DError(f"{checkpoint}: {name} is {config[name]}; {most}")


def _mel_filters(checkpoint: Path, bins: int) -> np.ndarray:
    """(mel bins, frequencies)."""
    from transformers import WhisperFeatureExtractor

    filters: Any = WhisperFeatureExtractor.from_pretrained(checkpoint).mel_filters
    if filters.shape[1] != bins:
        raise K2DError(
            f"{checkpoint}: a feature extractor of {filters.shape[1]} mel bins for a model of {bins}; {_FIX}"
        )
    return filters.T


def _plain_tokens(checkpoint: Path, vocab_size: int) -> list[bytes]:
    """The bytes of each token but the special ones, by id."""
    try:
        tokenizer = load_tokenizer(checkpoint).backend_tokenizer
    except Exception as error:  # of several libraries, for what is no tokenizer
        raise K2DError(f"{checkpoint}: its tokenizer cannot be read ({error_message(error)}); {_FIX}") from None
    special = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    plain = {index: token for token, index in tokenizer.get_vocab(with_added_tokens=False).items()}
    plain = {index: token for index, token in plain.items() if token not in special}
    if sorted(plain) != list(range(_PLAIN[vocab_size])):
        wrong = f"a tokenizer of {len(plain)} plain tokens for a vocabulary of {vocab_size}"
        raise K2DError(f"{checkpoint}: {wrong}, which has {_PLAIN[vocab_size]}; {_FIX}")
    return [_bytes_of(plain[index], checkpoint) for index in sorted(plain)]


def _alphabet() -> dict[str, int]:
    """GPT-2's: printable bytes stand for themselves, the others are counted from U+0100."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + at): byte for at, byte in enumerate(others)}


_BYTES = _alphabet()


def _bytes_of(token: str, checkpoint: Path) -> bytes:
    try:
        return bytes(_BYTES[character] for character in token)
    except KeyError:
        raise K2DError(f"{checkpoint}: token {quote(token)} is not of bytes as Whisper's are; {_FIX}") from None


def _expected(config: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Names and shapes of the tensors of such a checkpoint, in the order of the file."""
    d = config["d_model"]
    found: dict[str, tuple[int, ...]] = {
        "encoder.embed_positions.weight": (config["max_source_positions"], d),
        "encoder.conv1.weight": (d, config["num_mel_bins"], 3),
        "encoder.conv1.bias": (d,),
        "encoder.conv2.weight": (d, d, 3),
        "encoder.conv2.bias": (d,),
        **_norm("encoder.layer_norm", d),
        "decoder.embed_positions.weight": (config["max_target_positions"], d),
        "decoder.embed_tokens.weight": (config["vocab_size"], d),
        **_norm("decoder.layer_norm", d),
    }
    for part, attentions in (("encoder", ("self_attn",)), ("decoder", ("self_attn", "encoder_attn"))):
        neurons = config[f"{part}_ffn_dim"]
        for layer in range(config[f"{part}_layers"]):
            at = f"{part}.layers.{layer}"
            for attention in attentions:
                found |= _norm(f"{at}.{attention}_layer_norm", d)
                found |= {f"{at}.{attention}.{name}_proj.weight": (d, d) for name in ("q", "k", "v", "out")}
                found |= {f"{at}.{attention}.{name}_proj.bias": (d,) for name in ("q", "v", "out")}
            found |= _norm(f"{at}.final_layer_norm", d)
            found |= {f"{at}.fc1.weight": (neurons, d), f"{at}.fc1.bias": (neurons,)}
            found |= {f"{at}.fc2.weight": (d, neurons), f"{at}.fc2.bias": (d,)}
    return found


def _norm(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _full_shape(shape: tuple[int, ...], width: int, name: str) -> tuple[int, ...]:
    """The shape in the file, where feed-forward layers have four times the width."""
    if ".fc1." in name:
        return (4 * width, *shape[1:])
    return (width, 4 * width) if name.endswith(".fc2.weight") else shape


def _numbers_of(name: str, shape: Sequence[int], numbers: NumberFormat) -> NumberFormat:
    """The number format of a tensor in a file of `numbers`: whisper.cpp expects it by name."""
    from k2d_hf.models.ggml_file import F16, F32

    if len(shape) == 1 or name.endswith("embed_positions.weight"):
        return F32
    return F16 if len(shape) == 3 else numbers


def _name_in_file(name: str) -> str:
    for pattern, replacement in _RENAMED:
        name = re.sub(pattern, replacement, name)
    return name


def _stored_tensors(checkpoint: Path, stack: ExitStack) -> dict[str, Any]:
    """The tensors of a checkpoint by name, on disk until they are read."""
    from safetensors import safe_open

    found: dict[str, Any] = {}
    for file in weight_files(checkpoint):
        weights = stack.enter_context(safe_open(file, framework="pt"))  # numpy has no bfloat16
        found |= {name.removeprefix("model."): weights.get_slice(name) for name in list(weights.keys())}
    return found


class _Tensor:
    """A tensor of a checkpoint."""

    def __init__(self, stored: Any, name: str, checkpoint: Path) -> None:
        self.stored, self.name, self.checkpoint = stored, name, checkpoint
        self.shape = tuple(stored.get_shape())

    def rows(self, full: tuple[int, ...], numbers: NumberFormat) -> Iterator[np.ndarray]:
        """Its rows as float32, some at a time, filled up with zeros to the shape `full`.

        K2DError for what is not finite in the number format.
        """
        import numpy as np

        width = int(np.prod(full[1:], dtype=np.int64))
        step = max(_AT_ONCE // width, 1)
        for start in range(0, full[0], step):
            end = min(start + step, full[0])
            values = np.zeros((end - start, *full[1:]), np.float32)
            some = self.stored[start : min(end, self.shape[0])].float().numpy()
            values[tuple(slice(size) for size in some.shape)] = some
            # the steps of blocks are in float16 too
            most = np.finfo(np.float32 if numbers.name == "f32" else np.float16).max
            if not (np.abs(values) <= most).all():
                where = f"{self.checkpoint}: {short_name(self.name)}"
                raise K2DError(f"{where} holds numbers that are not finite in {numbers.name}; train again")
            yield values


FORMAT = ExportFormat(
    "ggml",
    title="ggml",
    reader="whisper.cpp",
    opened_with=f"whisper-cli -m DIR/{FILE}",
    fill=_fill,
    quantizations=("f16", "q8_0", "q5_0"),
    unquantized=DEFAULT,
)
