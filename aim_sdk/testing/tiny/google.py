"""Gemma 3n and Gemma 4, whose layers look every token up a second time, Gemma 4 without a tower, and PaliGemma, whose
prompt sees itself.
"""

from pathlib import Path
from typing import Any

from transformers import (
    Gemma3nAudioConfig,
    Gemma3nAudioFeatureExtractor,
    Gemma3nConfig,
    Gemma3nForConditionalGeneration,
    Gemma3nProcessor,
    Gemma3nTextConfig,
    Gemma3nVisionConfig,
    Gemma4AudioFeatureExtractor,
    Gemma4Config,
    Gemma4ForConditionalGeneration,
    Gemma4ImageProcessor,
    Gemma4Processor,
    Gemma4TextConfig,
    Gemma4UnifiedAudioConfig,
    Gemma4UnifiedAudioFeatureExtractor,
    Gemma4UnifiedConfig,
    Gemma4UnifiedForConditionalGeneration,
    Gemma4UnifiedImageProcessor,
    Gemma4UnifiedProcessor,
    Gemma4UnifiedTextConfig,
    Gemma4UnifiedVideoProcessor,
    Gemma4UnifiedVisionConfig,
    Gemma4VideoProcessor,
    Gemma4VisionConfig,
    GemmaConfig,
    GemmaTokenizer,
    PaliGemmaConfig,
    PaliGemmaForConditionalGeneration,
    PaliGemmaProcessor,
    PreTrainedTokenizerBase,
    SiglipImageProcessor,
)

from .common import HIDDEN, IMAGE, WINDOW, save, sentencepiece_bpe, siglip, text_options, tower_options

SIZE = {"height": IMAGE, "width": IMAGE}

GEMMA_3N = """{{ bos_token }}{% for message in messages %}\
{{ '<start_of_turn>' + ('model' if message['role'] == 'assistant' else message['role']) + '\n' }}\
{% for part in message['content'] %}\
{{ '<image_soft_token>' if part['type'] == 'image' else part['text'] | trim }}{% endfor %}\
{{ '<end_of_turn>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}"""

GEMMA_4 = """{{ bos_token }}{% for message in messages %}\
{{ '<|turn>' + ('model' if message['role'] == 'assistant' else message['role']) + '\n' }}\
{% for part in message['content'] %}{{ '<|image|>' if part['type'] == 'image' else part['text'] | trim }}{% endfor %}\
{{ '<turn|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|turn>model\n' }}{% endif %}"""


def _tokenizer(extra: list[str], **options: Any) -> PreTrainedTokenizerBase:
    vocab, merges = sentencepiece_bpe("<pad>", "<eos>", "<bos>", "<unk>", "<mask>")
    return GemmaTokenizer(
        vocab=dict(vocab),
        merges=list(merges),
        extra_special_tokens=[*(f"<unused{i}>" for i in range(6)), *extra],
        model_max_length=WINDOW,
        add_bos_token=True,
        **options,
    )


def _per_layer(tokenizer: PreTrainedTokenizerBase) -> dict[str, Any]:
    """A sliding layer and a full one, and one of each that share their keys and values."""
    return text_options(len(tokenizer), tokenizer) | {
        "num_hidden_layers": 4,
        "num_kv_shared_layers": 2,
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "head_dim": 8,
        "sliding_window": 64,
        "vocab_size_per_layer_input": len(tokenizer),
        "hidden_size_per_layer_input": 8,
    }


def gemma3n(folder: Path) -> None:
    """4 visual tokens per image from a convolutional tower of timm; an audio tower that nothing here uses."""
    tokenizer = _tokenizer(
        ["<start_of_turn>", "<end_of_turn>"],
        boi_token="<start_of_image>",
        eoi_token="<end_of_image>",
        image_token="<image_soft_token>",
        boa_token="<start_of_audio>",
        eoa_token="<end_of_audio>",
        audio_token="<audio_soft_token>",
    )
    processor = Gemma3nProcessor(
        Gemma3nAudioFeatureExtractor(),
        SiglipImageProcessor(size={"height": 2 * IMAGE, "width": 2 * IMAGE}),
        tokenizer,
        chat_template=GEMMA_3N,
        image_seq_length=4,
        audio_seq_length=2,
    )
    names = ("boi", "eoi", "image", "boa", "eoa", "audio")
    config = Gemma3nConfig(
        text_config=Gemma3nTextConfig(**_per_layer(tokenizer), laurel_rank=4, altup_num_inputs=2),
        vision_config=Gemma3nVisionConfig(
            architecture="test_resnet",
            model_args={"channels": [4, 8, 12, 16], "stem_width": 4, "global_pool": ""},
            hidden_size=16,
            vocab_size=1,
            vocab_offset=len(tokenizer),
        ),
        audio_config=Gemma3nAudioConfig(
            hidden_size=16,
            conf_num_attention_heads=2,
            conf_num_hidden_layers=1,
            sscp_conv_channel_size=[4, 4],
            vocab_size=1,
            vocab_offset=len(tokenizer) + 1,
        ),
        vision_soft_tokens_per_image=4,
        audio_soft_tokens_per_image=2,
        **{f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in names},
    )
    save(folder, Gemma3nForConditionalGeneration(config), processor, eos="<end_of_turn>")


def _tokenizer_4() -> PreTrainedTokenizerBase:
    return _tokenizer(
        ["<|turn>", "<turn|>"],
        boi_token="<|image>",
        eoi_token="<image|>",
        image_token="<|image|>",
        boa_token="<|audio>",
        eoa_token="<audio|>",
        audio_token="<|audio|>",
    )


def _ids_4(processor: Gemma4Processor | Gemma4UnifiedProcessor) -> dict[str, Any]:
    tokenizer = processor.tokenizer
    names = ("boi", "eoi", "image", "boa", "audio")
    return {
        **{f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in names},
        "eoa_token_index": tokenizer.eoa_token_id,
        "video_token_id": processor.video_token_id,
    }


def gemma4(folder: Path) -> None:
    """Up to 70 visual tokens per image, the fewest that its processor knows, which see each other."""
    tokenizer = _tokenizer_4()
    patches: dict[str, Any] = {"patch_size": 4, "pooling_kernel_size": 2, "max_soft_tokens": 70}
    processor = Gemma4Processor(
        Gemma4AudioFeatureExtractor(),
        Gemma4ImageProcessor(**patches),
        tokenizer,
        Gemma4VideoProcessor(**patches),
        chat_template=GEMMA_4,
        image_seq_length=70,
    )
    tower = {name: size for name, size in tower_options(4).items() if name != "image_size"}
    config = Gemma4Config(
        text_config=Gemma4TextConfig(
            **_per_layer(processor.tokenizer),
            global_head_dim=16,
            use_bidirectional_attention="vision",
            final_logit_softcapping=30.0,
        ),
        vision_config=Gemma4VisionConfig(
            **tower, num_key_value_heads=4, head_dim=8, pooling_kernel_size=2, position_embedding_size=512
        ),
        audio_config=None,
        **_ids_4(processor),
    )
    save(folder, Gemma4ForConditionalGeneration(config), processor, eos="<turn|>")


def gemma4_unified(folder: Path) -> None:
    """Gemma 4 without a tower and without a second look: a linear layer embeds 8 pixels square and their place."""
    tokenizer = _tokenizer_4()
    patches: dict[str, Any] = {"patch_size": 4, "pooling_kernel_size": 2, "max_soft_tokens": 70}
    processor = Gemma4UnifiedProcessor(
        Gemma4UnifiedAudioFeatureExtractor(feature_size=16, audio_samples_per_token=16),
        Gemma4UnifiedImageProcessor(**patches),
        tokenizer,
        Gemma4UnifiedVideoProcessor(**patches),
        chat_template=GEMMA_4,
        image_seq_length=70,
    )
    text = Gemma4UnifiedTextConfig(
        **text_options(len(processor.tokenizer), tokenizer),
        layer_types=["sliding_attention", "full_attention"],
        head_dim=8,
        global_head_dim=16,
        sliding_window=64,
        final_logit_softcapping=30.0,
    )
    config = Gemma4UnifiedConfig(
        text_config=text,
        vision_config=Gemma4UnifiedVisionConfig(
            patch_size=4, pooling_kernel_size=2, mm_embed_dim=HIDDEN, mm_posemb_size=70, output_proj_dims=HIDDEN
        ),
        audio_config=Gemma4UnifiedAudioConfig(audio_embed_dim=16),
        **_ids_4(processor),
    )
    save(folder, Gemma4UnifiedForConditionalGeneration(config), processor, eos="<turn|>")


def paligemma(folder: Path) -> None:
    """16 visual tokens, then BOS, the prompt and a line end, all of which see each other; no chat template."""
    images = SiglipImageProcessor(size=SIZE, image_seq_length=16)
    processor = PaliGemmaProcessor(images, _tokenizer([]))
    tokenizer = processor.tokenizer
    config = PaliGemmaConfig(
        text_config=GemmaConfig(**text_options(len(tokenizer), tokenizer), head_dim=8),
        vision_config=siglip(8),
        image_token_index=processor.image_token_id,
        vocab_size=len(tokenizer),
        projection_dim=HIDDEN,
        hidden_size=HIDDEN,
    )
    save(folder, PaliGemmaForConditionalGeneration(config), processor)
