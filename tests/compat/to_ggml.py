"""Run by the Python of another environment: FOLDER FILE writes a student in whisper.cpp's format.

That project's own script for checkpoints of transformers is in no package; this one opens the same files of a folder
(config.json, vocab.json, added_tokens.json, the weights) and takes the mel filters from the feature extractor. The
format is: a magic number and eleven sizes, mel filters, tokens as bytes, then each tensor with its shape and name.
"""

import json
import re
import struct
import sys
from pathlib import Path

import numpy as np
from transformers import WhisperFeatureExtractor, WhisperForConditionalGeneration

MAGIC = 0x67676D6C
SIZES = ("vocab_size", "max_source_positions", "d_model", "encoder_attention_heads", "encoder_layers")
SIZES += ("max_length", "d_model", "decoder_attention_heads", "decoder_layers", "num_mel_bins")
HALF = 1  # matrices in float16, all else in float32
RENAMED = (
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


def bytes_of(token: str) -> bytes:
    """The bytes that a token of GPT-2's alphabet stands for: printable ones for themselves, the others from U+0100."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    alphabet = {chr(byte): byte for byte in printable} | {chr(256 + at): byte for at, byte in enumerate(others)}
    return bytes(alphabet[character] for character in token)


def main(folder: str, file: str) -> None:
    config, vocabulary, added = (
        json.loads((Path(folder) / name).read_text(encoding="utf-8"))
        for name in ("config.json", "vocab.json", "added_tokens.json")
    )
    vocabulary.pop("<|endoftext|>", None)
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    assert [vocabulary[token] for token in tokens] == list(range(len(tokens)))  # whisper.cpp counts them
    assert len(tokens) + 1 + len(added) == config["vocab_size"]
    filters = WhisperFeatureExtractor.from_pretrained(folder).mel_filters.T.astype(np.float32)
    with open(file, "wb") as out:
        out.write(struct.pack("12i", MAGIC, *(config[name] for name in SIZES), HALF))
        out.write(struct.pack("2i", *filters.shape) + filters.tobytes())
        out.write(struct.pack("i", len(tokens)))
        for token in map(bytes_of, tokens):
            out.write(struct.pack("i", len(token)) + token)
        for name, tensor in WhisperForConditionalGeneration.from_pretrained(folder).state_dict().items():
            if name != "proj_out.weight":  # the embedding
                write_tensor(out, name.removeprefix("model."), tensor.float().numpy())


def write_tensor(out, name: str, tensor: np.ndarray) -> None:
    for pattern, replacement in RENAMED:
        name = re.sub(pattern, replacement, name)
    if re.fullmatch(r"encoder\.conv\d\.bias", name):
        tensor = tensor[:, None]
    half = tensor.ndim > 1 and not name.endswith(("positional_embedding", "bias"))
    tensor = tensor.astype(np.float16 if half else np.float32)
    out.write(struct.pack("3i", tensor.ndim, len(name), int(half)))
    out.write(struct.pack(f"{tensor.ndim}i", *reversed(tensor.shape)) + name.encode() + tensor.tobytes())


if __name__ == "__main__":
    main(*sys.argv[1:])
