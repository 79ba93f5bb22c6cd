"""nn.Transformer with argparse, loader workers, a validation after each epoch and a checkpoint at the end."""

import argparse
import atexit
import math

import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

PAD, BOS, EOS, SIZE = 0, 1, 2, 20


class Reversed(Dataset):
    def __init__(self, count, seed):
        draw = torch.Generator().manual_seed(seed)
        self.rows = [
            torch.randint(3, SIZE, (int(n),), generator=draw) for n in torch.randint(3, 8, (count,), generator=draw)
        ]

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        row = self.rows[i]
        return row, torch.cat([torch.tensor([BOS]), row.flip(0), torch.tensor([EOS])])


def collate(rows):
    sources, targets = zip(*rows, strict=True)
    pad = nn.utils.rnn.pad_sequence
    return pad(sources, batch_first=True), pad(targets, batch_first=True)


class Seq2Seq(nn.Module):
    def __init__(self, fault, width=32):
        super().__init__()
        self.fault = fault
        self.src, self.tgt = nn.Embedding(SIZE, width, padding_idx=PAD), nn.Embedding(SIZE, width, padding_idx=PAD)
        self.place = nn.Parameter(torch.randn(16, width) / math.sqrt(width))
        self.transformer = nn.Transformer(width, 4, 2, 2, 64, batch_first=True)
        self.out = nn.Linear(width, SIZE)

    def forward(self, source, target):
        x, y = self.src(source) + self.place[: source.shape[1]], self.tgt(target) + self.place[: target.shape[1]]
        later = self.transformer.generate_square_subsequent_mask(target.shape[1])
        memory = self.transformer.encoder(x, src_key_padding_mask=source == PAD)
        if self.fault == "state":
            memory = torch.zeros_like(memory)
        out = self.transformer.decoder(y, memory, tgt_mask=later, memory_key_padding_mask=source == PAD)
        logits = self.out(out)
        return torch.softmax(logits, -1) if self.fault == "softmax" else logits


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--fault", default="")
    parser.add_argument("--save", default="")
    parser.add_argument("--teacher", action="store_true")
    args = parser.parse_args()
    torch.manual_seed(0)
    model = Seq2Seq(args.fault)
    teacher = Seq2Seq("") if args.teacher else None
    learning = [p for n, p in model.named_parameters() if args.fault != "unoptimised" or "encoder" not in n]
    optimizer = torch.optim.Adam(learning, lr=args.lr)
    train = DataLoader(Reversed(640, 0), 16, shuffle=True, collate_fn=collate, num_workers=args.workers)
    valid = DataLoader(Reversed(64, 1), 16, collate_fn=collate)
    criterion = nn.CrossEntropyLoss(ignore_index=PAD)
    atexit.register(lambda: print("cleaned up"))
    for epoch in range(args.epochs):
        model.train()
        for source, target in train:
            logits = model(source, target[:, :-1])
            loss = criterion(logits.reshape(-1, SIZE), target[:, 1:].reshape(-1))
            if teacher is not None:
                said = torch.softmax(teacher(source, target[:, :-1]).detach(), -1)
                loss = loss + 0.1 * nn.functional.kl_div(torch.log_softmax(logits, -1), said, reduction="batchmean")
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        model.eval()
        with torch.no_grad():
            total = sum(criterion(model(s, t[:, :-1]).transpose(1, 2), t[:, 1:]).item() for s, t in valid)
        print(f"epoch {epoch} train {loss.item():.6f} valid {total / len(valid):.6f}")
    if args.save:
        torch.save(model.state_dict(), args.save)


if __name__ == "__main__":
    main()
