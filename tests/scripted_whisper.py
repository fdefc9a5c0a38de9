"""A tiny Whisper that always writes the same transcript: real weights, real decoding, a text known beforehand."""

from pathlib import Path

from tiny_whisper import make_tiny_whisper

LANGUAGE, TASK, FIRST_TIMESTAMP, END = 50260, 50359, 50364, 50257  # <|zh|>, <|transcribe|>, <|0.00|>, <|endoftext|>


def write_scripted_whisper(folder: Path, processor, *segments: tuple[float, str], seed=0, **shape) -> Path:
    """Write the checkpoint of a Whisper that says `segments` (seconds of their end, text) in every window of 30 s.

    Its decoder layers add nothing at first, and each position embedding points to the token that comes next: so it
    writes by position and not by what it hears, until it is trained.
    """
    import torch

    script = [LANGUAGE, TASK, FIRST_TIMESTAMP]
    for index, (end, text) in enumerate(segments):
        stamp = FIRST_TIMESTAMP + round(end / 0.02)
        last = index == len(segments) - 1
        script += [*processor.tokenizer.encode(text, add_special_tokens=False), *([stamp] if last else [stamp, stamp])]
    model = make_tiny_whisper(seed=seed, d_model=64, **shape)
    decoder = model.model.decoder
    with torch.no_grad():
        tokens = decoder.embed_tokens.weight
        tokens.normal_()  # the row of the padding token, which ends a transcript here, was zero
        tokens -= tokens.mean(dim=1, keepdim=True)
        tokens /= tokens.norm(dim=1, keepdim=True)
        upcoming = torch.tensor(script + [END] * (448 - len(script)))
        decoder.embed_positions.weight.copy_(8 * tokens[upcoming])
        decoder.layer_norm.weight.fill_(4)
        for layer in decoder.layers:
            for adds in (layer.self_attn.out_proj, layer.encoder_attn.out_proj, layer.fc2):
                adds.weight.zero_()
                adds.bias.zero_()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
