"""CTranslate2 Whisper to transformers checkpoint, every weight of it: many community Whispers exist only so.

The way back is `exports/ctranslate2_format.py`.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from k2d_hf.errors import K2DError
from k2d_hf.files.folders import write_folder
from k2d_hf.files.json_files import read_json
from k2d_hf.formatting import error_message, short_name
from k2d_hf.models.checkpoint import DTYPES
from k2d_hf.models.ctranslate2_file import read_ctranslate2
from k2d_hf.models.ctranslate2_weights import check_against_architecture, transformers_weights, weight_shapes
from k2d_hf.models.generation import generation_fields
from k2d_hf.models.student_folder import rewrite_config, write_processor
from k2d_hf.models.whisper_tokens import CHUNK_SECONDS, TIMESTAMP_SECONDS, SpecialTokens

if TYPE_CHECKING:
    from transformers import GenerationConfig, WhisperConfig

_ENCODER_POSITIONS_PER_SECOND = 50
_TIMESTAMPS = round(CHUNK_SECONDS / TIMESTAMP_SECONDS) + 1  # <|0.00|> to <|30.00|>


def import_ctranslate2(source_dir: str | Path, output_dir: str | Path, *, dtype: str = "float32") -> Path:
    """Write the transformers checkpoint of a CTranslate2 Whisper folder (`k2d import-ctranslate2`).

    Args:
        source_dir: folder with `model.bin`, `tokenizer.json` and, where there is one, `config.json`. Weights may be
            float32, float16, bfloat16, int16 or int8 (the last two come back as they were rounded).
        output_dir: folder to write; it must be empty or not exist.
        dtype: type of the written weights: float32, float16 or bfloat16.

    Returns:
        `output_dir`, loadable with `WhisperForConditionalGeneration` and `WhisperProcessor.from_pretrained`.

    Raises:
        K2DError: if the source is not a complete CTranslate2 Whisper, or the output folder holds something.
    """
    if dtype not in DTYPES:
        raise K2DError(f"dtype {dtype!r}: not one of {', '.join(DTYPES)}")
    return write_folder(Path(output_dir), lambda folder: fill_checkpoint(Path(source_dir), folder, dtype=dtype))


def fill_checkpoint(source: Path, folder: Path, *, dtype: str = "float32") -> None:
    """As `import_ctranslate2`, into an existing folder, for callers that make it appear complete themselves."""
    import torch
    from safetensors.torch import save_file
    from transformers import WhisperConfig

    model = read_ctranslate2(source / "model.bin")
    if model.spec != "WhisperSpec":
        raise K2DError(f"{model.path}: a CTranslate2 {short_name(model.spec)}, not a Whisper model")
    settings = _read_settings(source / "config.json")
    weights = transformers_weights(model)
    shapes = weight_shapes(model, weights)
    tokenizer = save_processor(source / "tokenizer.json", folder, shapes=shapes)
    try:
        special = SpecialTokens.of(tokenizer)
    except K2DError as error:
        raise K2DError(f"{source / 'tokenizer.json'}: {error}") from None
    config = WhisperConfig(
        **shapes,
        encoder_attention_heads=model.setting("encoder/num_heads"),
        decoder_attention_heads=model.setting("decoder/num_heads"),
        tie_word_embeddings="proj_out.weight" not in weights,
        bos_token_id=special.end_of_text,
        eos_token_id=special.end_of_text,
        pad_token_id=special.end_of_text,
        decoder_start_token_id=special.start_of_transcript,
        begin_suppress_tokens=None,  # the generation config has it; the class's default is an English-only model's
        architectures=["WhisperForConditionalGeneration"],
        dtype=dtype,
    )
    check_against_architecture(model, weights, config)
    _generation_config(settings, config, tokenizer).save_pretrained(folder)
    tensors = {name: torch.from_numpy(array).to(getattr(torch, dtype)) for name, array in weights.items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    config.save_pretrained(folder)
    rewrite_config(folder)


def _generation_config(settings: dict[str, Any], config: WhisperConfig, tokenizer: Any) -> GenerationConfig:
    """The generation config of OpenAI's checkpoints: from the tokenizer, and from `settings`."""
    from transformers import GenerationConfig

    fields = generation_fields(tokenizer, max_length=config.max_target_positions)
    if settings.get("suppress_ids") is not None:
        fields["suppress_tokens"] = settings["suppress_ids"]
    if settings.get("suppress_ids_begin"):
        fields["begin_suppress_tokens"] = settings["suppress_ids_begin"]
    heads = settings.get("alignment_heads") or ()
    if kept := [[layer, head] for layer, head in heads if 0 <= layer < config.decoder_layers]:
        fields["alignment_heads"] = kept
    return GenerationConfig(return_timestamps=False, **fields)


def _read_settings(path: Path) -> dict[str, Any]:
    if not path.is_file():  # models converted years ago have none
        return {}
    settings = read_json(path)
    for name in ("suppress_ids", "suppress_ids_begin"):
        if settings.get(name) is not None and not _are_whole_numbers(settings[name]):
            raise K2DError(f"{path}: {name} is no list of token ids; download or copy it again")
    heads = settings.get("alignment_heads") or []
    if not isinstance(heads, list) or not all(_are_whole_numbers(pair) and len(pair) == 2 for pair in heads):
        raise K2DError(f"{path}: alignment_heads is no list of layers and heads; download or copy it again")
    return settings


def _are_whole_numbers(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) is int and abs(value) < 1 << 31 for value in values)


def save_processor(tokenizer_file: Path, output: Path, *, shapes: dict[str, Any]) -> Any:
    """Save the processor that fits `shapes` and return its tokenizer."""
    from tokenizers import AddedToken, Tokenizer
    from transformers import WhisperFeatureExtractor, WhisperProcessor, WhisperTokenizer

    if not tokenizer_file.is_file():
        raise K2DError(f"{tokenizer_file}: missing (a vocabulary alone encodes no text); copy the original model's")
    try:
        backend = Tokenizer.from_file(str(tokenizer_file))
    except Exception as error:  # the library raises bare Exception
        reason = error_message(error)
        raise K2DError(f"{tokenizer_file}: not a tokenizer ({reason}); download or copy it again") from None
    if shapes["vocab_size"] - backend.get_vocab_size() == _TIMESTAMPS:  # files of the first years stop before these
        names = [f"<|{index * TIMESTAMP_SECONDS:.2f}|>" for index in range(_TIMESTAMPS)]
        backend.add_tokens([AddedToken(name, special=False) for name in names])
    vocabulary = backend.get_vocab()
    if len(vocabulary) != shapes["vocab_size"]:
        raise K2DError(f"{tokenizer_file}: {len(vocabulary)} tokens, the model has {shapes['vocab_size']}")
    if (largest := max(vocabulary.values())) >= shapes["vocab_size"]:
        raise K2DError(f"{tokenizer_file}: a token with the id {largest}, the model has {shapes['vocab_size']}")
    for name in ("<|endoftext|>", "<|notimestamps|>"):
        if name not in vocabulary:  # WhisperTokenizer would add the first, past the model's last
            raise K2DError(f"{tokenizer_file}: no token {name}; copy the tokenizer.json of the original model")
    last_special = vocabulary["<|notimestamps|>"]
    backend.save(str(output / "tokenizer.json"))
    # WhisperTokenizer takes the last special id plus one for <|0.00|>; by default its last is <|endoftext|>, and every
    # timestamp that it decodes is 2 s late.
    added = backend.get_added_tokens_decoder()
    tokenizer = WhisperTokenizer(
        tokenizer_file=str(output / "tokenizer.json"),
        extra_special_tokens=[added[index].content for index in sorted(added) if index <= last_special],
        model_max_length=shapes["max_target_positions"],
        pad_token="<|endoftext|>",
    )
    feature_extractor = WhisperFeatureExtractor(
        feature_size=shapes["num_mel_bins"],
        chunk_length=shapes["max_source_positions"] // _ENCODER_POSITIONS_PER_SECOND,
    )
    write_processor(WhisperProcessor(feature_extractor, tokenizer), output)
    return tokenizer
