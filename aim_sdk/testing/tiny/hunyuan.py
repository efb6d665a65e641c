"""HunyuanVL (HunyuanOCR)."""

from pathlib import Path

from transformers import (
    HunYuanVLConfig,
    HunYuanVLForConditionalGeneration,
    HunYuanVLImageProcessor,
    HunYuanVLProcessor,
    HunYuanVLTextConfig,
    HunYuanVLVisionConfig,
)

from .common import HIDDEN, byte_level_tokenizer, save, spare, text_options
from .qwen import SIZE

_BOS, _USER, _ASSISTANT = "<｜hy_begin▁of▁sentence｜>", "<｜hy_User｜>", "<｜hy_Assistant｜>"
_EOD, _PAD = "<｜hy_end▁of▁sentence｜>", "<｜hy_▁pad▁｜>"
_SYSTEM, _START, _END, _IMAGE, _LINE = (f"<｜hy_place▁holder▁no▁{i}｜>" for i in (3, 100, 101, 102, 103))

# Marks stand after a turn, not before it: nothing opens an answer.
TEMPLATE = f"""{{{{ '{_BOS}' }}}}{{% for message in messages %}}{{% for part in message['content'] %}}\
{{{{ '{_START}{_IMAGE}{_END}' if part['type'] == 'image' else part['text'] }}}}{{% endfor %}}\
{{{{ {{'system': '{_SYSTEM}', 'user': '{_USER}', 'assistant': '{_ASSISTANT}'}}[message['role']] }}}}{{% endfor %}}"""


def hunyuan_vl(folder: Path) -> None:
    """A visual token for 16 pixels square, one a line and two ends, between two marks; four-dimensional positions."""
    tokenizer = byte_level_tokenizer(
        [_BOS, _EOD, _PAD, _SYSTEM, _USER, _ASSISTANT, _START, _END, _IMAGE, _LINE],
        bos_token=_BOS,
        eos_token=_ASSISTANT,
        pad_token=_PAD,
        image_token=_IMAGE,
        image_start_token=_START,
        image_end_token=_END,
    )
    processor = HunYuanVLProcessor(
        HunYuanVLImageProcessor(size=SIZE, patch_size=8, merge_size=2), tokenizer, chat_template=TEMPLATE
    )
    rope = {"rope_type": "xdrope", "rope_theta": 1e4, "alpha": 1000.0, "factor": 1.0, "xdrope_section": [2, 2, 2, 2]}
    text = HunYuanVLTextConfig(
        **text_options(spare(tokenizer), tokenizer),
        head_dim=16,
        rope_parameters=rope,
        eod_token_id=tokenizer.convert_tokens_to_ids(_EOD),
    )
    tower = HunYuanVLVisionConfig(
        hidden_size=HIDDEN,
        intermediate_size=2 * HIDDEN,
        num_hidden_layers=2,
        num_attention_heads=2,
        out_hidden_size=HIDDEN,
        patch_size=8,
        max_image_size=64,
        min_image_size=32,
    )
    config = HunYuanVLConfig(
        text_config=text,
        vision_config=tower,
        image_token_id=tokenizer.convert_tokens_to_ids(_IMAGE),
        im_start_id=tokenizer.convert_tokens_to_ids(_START),
        im_end_id=tokenizer.convert_tokens_to_ids(_END),
        im_newline_id=tokenizer.convert_tokens_to_ids(_LINE),
    )
    save(folder, HunYuanVLForConditionalGeneration(config), processor)
