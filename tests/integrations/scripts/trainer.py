"""Hugging Face's Seq2SeqTrainer on a small T5, from scratch."""

import sys

import torch
from transformers import Seq2SeqTrainer, Seq2SeqTrainingArguments, T5Config, T5ForConditionalGeneration, set_seed

fault, output, steps = sys.argv[1], sys.argv[2], int(sys.argv[3]) if len(sys.argv) > 3 else 300
set_seed(0)
config = T5Config(
    vocab_size=24, d_model=32, d_kv=8, d_ff=64, num_layers=1, num_heads=4, decoder_start_token_id=0, pad_token_id=0
)
model = T5ForConditionalGeneration(config)
if fault == "frozen":
    for parameter in model.encoder.block.parameters():
        parameter.requires_grad = False
if fault == "zeros":
    torch.nn.init.zeros_(model.shared.weight)
    torch.nn.init.zeros_(model.lm_head.weight)


def rows(count, seed):
    draw = torch.Generator().manual_seed(seed)
    words = [
        torch.randint(2, 24, (int(n),), generator=draw).tolist() for n in torch.randint(4, 9, (count,), generator=draw)
    ]
    return [{"input_ids": [*w, 1], "labels": [*w[::-1], 1]} for w in words]


def collate(batch):
    width = max(len(row["input_ids"]) for row in batch)
    ids = torch.tensor([row["input_ids"] + [0] * (width - len(row["input_ids"])) for row in batch])
    labels = torch.tensor([row["labels"] + [-100] * (width - len(row["labels"])) for row in batch])
    return {"input_ids": ids, "attention_mask": (ids != 0).long(), "labels": labels}


arguments = Seq2SeqTrainingArguments(
    output, max_steps=steps, per_device_train_batch_size=16, learning_rate=3e-3, report_to=[], use_cpu=True,
    save_strategy="no", disable_tqdm=True, logging_steps=500, seed=0,
)  # fmt: skip
trainer = Seq2SeqTrainer(model, arguments, data_collator=collate, train_dataset=rows(1600, 0), eval_dataset=rows(64, 1))
print(f"loss {trainer.train().training_loss:.6f}")
trainer.save_model(output)
