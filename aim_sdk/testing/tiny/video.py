"""LLaVA-NeXT-Video, Video-LLaVA and VideoLLaMA 3, which read images as well as videos."""

from pathlib import Path

from transformers import (
    LlavaNextImageProcessor,
    LlavaNextVideoConfig,
    LlavaNextVideoForConditionalGeneration,
    LlavaNextVideoProcessor,
    LlavaNextVideoVideoProcessor,
    Qwen2Tokenizer,
    VideoLlama3Config,
    VideoLlama3ForConditionalGeneration,
    VideoLlama3ImageProcessor,
    VideoLlama3Processor,
    VideoLlama3VideoProcessor,
    VideoLlama3VisionConfig,
    VideoLlavaConfig,
    VideoLlavaForConditionalGeneration,
    VideoLlavaImageProcessor,
    VideoLlavaProcessor,
    VideoLlavaVideoProcessor,
)

from .common import HIDDEN, IMAGE, WINDOW, byte_level_bpe, clip, llama, llama_tokenizer, qwen2, save, spare
from .llava import PINPOINTS, VICUNA
from .qwen import PATCH, SIZE, SPECIAL

TEMPLATE = """{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' }}\
{% for part in message['content'] %}\
{{ '<|image_pad|>\n' if part['type'] == 'image' else part['text'] }}{% endfor %}\
{{ '<|im_end|>\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"""

CROP = {"height": IMAGE, "width": IMAGE}


def llava_next_video(folder: Path) -> None:
    """4 visual tokens for the whole image, up to 20 for its tiles and line ends."""
    tokenizer = llama_tokenizer(
        image_token="<image>", video_token="<video>", pad_token="<pad>", padding_side="left", legacy=False
    )
    processor = LlavaNextVideoProcessor(
        LlavaNextVideoVideoProcessor(size={"shortest_edge": IMAGE}, crop_size=CROP),
        LlavaNextImageProcessor(size={"shortest_edge": IMAGE}, crop_size=CROP, image_grid_pinpoints=PINPOINTS),
        tokenizer,
        patch_size=16,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=VICUNA,
    )
    config = LlavaNextVideoConfig(
        vision_config=clip(16),
        text_config=llama(spare(tokenizer), tokenizer),
        image_token_index=processor.image_token_id,
        video_token_index=processor.video_token_id,
        image_grid_pinpoints=PINPOINTS,
        image_seq_length=4,
    )
    save(folder, LlavaNextVideoForConditionalGeneration(config), processor)


def video_llava(folder: Path) -> None:
    """16 visual tokens per image; a tower of its own for videos."""
    tokenizer = llama_tokenizer(
        image_token="<image>", video_token="<video>", pad_token="<pad>", padding_side="left", legacy=False
    )
    processor = VideoLlavaProcessor(
        VideoLlavaImageProcessor(size={"shortest_edge": IMAGE}, crop_size=CROP),
        VideoLlavaVideoProcessor(size={"shortest_edge": IMAGE}, crop_size=CROP),
        tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=VICUNA,
    )
    config = VideoLlavaConfig(
        vision_config=clip(8),
        text_config=llama(spare(tokenizer), tokenizer),
        image_token_index=processor.image_token_id,
        video_token_index=processor.video_token_id,
        image_seq_length=16,
    )
    save(folder, VideoLlavaForConditionalGeneration(config), processor)


def video_llama_3(folder: Path) -> None:
    """A visual token for 8 pixels square, none merged, up to 64; no marks around them but a line end."""
    vocab, merges = byte_level_bpe()
    tokenizer = Qwen2Tokenizer(
        vocab=dict(vocab),
        merges=list(merges),
        unk_token=None,
        eos_token="<|im_end|>",
        extra_special_tokens=SPECIAL,
        model_max_length=WINDOW,
    )
    processor = VideoLlama3Processor(
        VideoLlama3ImageProcessor(size=SIZE, patch_size=PATCH),
        tokenizer,
        VideoLlama3VideoProcessor(size=SIZE, patch_size=PATCH),
        chat_template=TEMPLATE,
    )
    tower = VideoLlama3VisionConfig(
        hidden_size=HIDDEN,
        intermediate_size=2 * HIDDEN,
        num_hidden_layers=2,
        num_attention_heads=2,
        patch_size=PATCH,
    )
    config = VideoLlama3Config(
        text_config=qwen2(spare(tokenizer), tokenizer, tied=True),
        vision_config=tower,
        image_token_id=processor.image_token_id,
        video_token_id=processor.video_token_id,
        tie_word_embeddings=True,
    )
    save(folder, VideoLlama3ForConditionalGeneration(config), processor)
