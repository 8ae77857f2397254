"""Writes a random-weight tiny Llama as engines read it from a folder (config, tokenizer, safetensors), so that a real vLLM can
run in tests with nothing downloaded.

    python make_tiny_llama.py FOLDER

The tokenizer is that of make_tiny_gguf.py with all of ASCII, since JSON wants braces, which no licence text has. The chat
template shows tools to the model; a random model calls one only where the engine makes it.
"""
import json, pathlib, struct, sys
import numpy as np
from make_tiny_gguf import CONTEXT, HEAD_DIM, KV_HEADS, SPECIAL, TEMPLATE, train_tokenizer

WIDTH, LAYERS = 128, 2
HEADS, FFN = WIDTH // HEAD_DIM, 2 * WIDTH
TOOLS = "{% if tools %}<|im_start|>system\n{{ tools | tojson }}<|im_end|>\n{% endif %}"
END, _, TURN_END = SPECIAL


def config(vocabulary: int) -> dict:
    return {
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "float32", "vocab_size": vocabulary,
        "hidden_size": WIDTH, "intermediate_size": FFN, "num_hidden_layers": LAYERS, "num_attention_heads": HEADS,
        "num_key_value_heads": KV_HEADS, "head_dim": HEAD_DIM, "max_position_embeddings": CONTEXT, "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0, "hidden_act": "silu", "tie_word_embeddings": False, "bos_token_id": 0, "eos_token_id": 2,
    }


def weights(vocabulary: int) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    rand = lambda *shape: (rng.standard_normal(shape) * 0.05).astype(np.float32)
    ones = np.ones(WIDTH, np.float32)
    tensors = {"model.embed_tokens.weight": rand(vocabulary, WIDTH), "model.norm.weight": ones,
               "lm_head.weight": rand(vocabulary, WIDTH)}
    for i in range(LAYERS):
        layer = f"model.layers.{i}"
        tensors |= {
            f"{layer}.input_layernorm.weight": ones, f"{layer}.post_attention_layernorm.weight": ones,
            f"{layer}.self_attn.q_proj.weight": rand(HEADS * HEAD_DIM, WIDTH),
            f"{layer}.self_attn.k_proj.weight": rand(KV_HEADS * HEAD_DIM, WIDTH),
            f"{layer}.self_attn.v_proj.weight": rand(KV_HEADS * HEAD_DIM, WIDTH),
            f"{layer}.self_attn.o_proj.weight": rand(WIDTH, HEADS * HEAD_DIM),
            f"{layer}.mlp.gate_proj.weight": rand(FFN, WIDTH), f"{layer}.mlp.up_proj.weight": rand(FFN, WIDTH),
            f"{layer}.mlp.down_proj.weight": rand(WIDTH, FFN),
        }
    return tensors


def safetensors(tensors: dict[str, np.ndarray]) -> bytes:
    """The format is a length, a JSON header and the bytes: https://github.com/huggingface/safetensors#format"""
    header, at = {}, 0
    for name, tensor in tensors.items():
        header[name] = {"dtype": "F32", "shape": tensor.shape, "data_offsets": [at, at + tensor.nbytes]}
        at += tensor.nbytes
    head = json.dumps(header).encode()
    return struct.pack("<Q", len(head)) + head + b"".join(tensor.tobytes() for tensor in tensors.values())


def write_model(folder: pathlib.Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer = train_tokenizer([chr(c) for c in range(ord("!"), ord("~") + 1)])
    size = tokenizer.get_vocab_size()
    write = lambda name, value: (folder / name).write_text(json.dumps(value, indent=1) + "\n")
    write("config.json", config(size))
    write("generation_config.json", {"bos_token_id": 0, "eos_token_id": 2})
    write("tokenizer_config.json", {"tokenizer_class": "PreTrainedTokenizerFast", "bos_token": END, "eos_token": TURN_END,
                                    "model_max_length": CONTEXT, "chat_template": TOOLS + TEMPLATE})
    (folder / "tokenizer.json").write_text(tokenizer.to_str())
    (folder / "model.safetensors").write_bytes(safetensors(weights(size)))


if __name__ == "__main__":
    write_model(pathlib.Path(sys.argv[1]))
