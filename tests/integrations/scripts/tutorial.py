"""A translation tutorial: encoder and decoder apart, an optimizer each, one letter at a time, one pair at a time."""

import random
import sys

import torch
import torch.nn as nn
from torch import optim

fault = sys.argv[1] if len(sys.argv) > 1 else ""
SOS, EOS, SIZE, hidden_size = 0, 1, 14, 32
random.seed(0)
torch.manual_seed(0)


class EncoderRNN(nn.Module):
    def __init__(self, input_size, hidden_size):
        super().__init__()
        self.hidden_size = hidden_size
        self.embedding = nn.Embedding(input_size, hidden_size)
        self.gru = nn.GRU(hidden_size, hidden_size)

    def forward(self, input, hidden):
        return self.gru(self.embedding(input), hidden)

    def initHidden(self, batch):
        return torch.zeros(1, batch, self.hidden_size)


class DecoderRNN(nn.Module):
    def __init__(self, hidden_size, output_size):
        super().__init__()
        self.embedding = nn.Embedding(output_size, hidden_size)
        self.gru = nn.GRU(hidden_size, hidden_size)
        self.out = nn.Linear(hidden_size, output_size)

    def forward(self, input, hidden):
        output, hidden = self.gru(self.embedding(input).unsqueeze(0), hidden)
        return torch.log_softmax(self.out(output[0]), dim=1), hidden


def batch(size=16, length=5):
    source = torch.randint(2, SIZE, (length, size))
    return source, torch.cat([source.flip(0), torch.full((1, size), EOS)])


def train(source, target):
    hidden = encoder.initHidden(source.size(1))
    encoder_optimizer.zero_grad()
    decoder_optimizer.zero_grad()
    _, hidden = encoder(source, hidden)
    if fault == "state":
        hidden = encoder.initHidden(source.size(1))
    token, loss = torch.full((source.size(1),), SOS), 0
    for di in range(len(target)):
        output, hidden = decoder(token, hidden)
        loss += criterion(output, target[di])
        token = target[di]
    (loss / len(target)).backward()
    encoder_optimizer.step()
    decoder_optimizer.step()
    return loss.item() / len(target)


encoder, decoder = EncoderRNN(SIZE, hidden_size), DecoderRNN(hidden_size, SIZE)
if fault == "zeros":
    for each in (encoder.embedding, decoder.embedding, decoder.out):
        nn.init.zeros_(each.weight)
learning = decoder if fault == "unoptimised" else encoder
encoder_optimizer = optim.Adam(learning.parameters(), lr=5e-3)
decoder_optimizer = optim.Adam(decoder.parameters(), lr=5e-3)
criterion = nn.NLLLoss()
for i in range(1, 201):
    loss = train(*batch())
    if i % 20 == 0:
        print(f"{i} {loss:.4f}")
print("trained")
