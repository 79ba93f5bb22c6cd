"""Run as `python -m package.train`: a relative import, a pickle of what `__main__` holds, an error in the end."""

import pickle
import sys

import torch
from torch import nn

from .settings import SIZE


class Row:
    """Pickled by its name in `__main__`."""

    def __init__(self, i):
        draw = torch.Generator().manual_seed(i)
        self.source = torch.randint(2, SIZE, (16, 5), generator=draw)
        self.target = torch.cat([torch.ones(16, 1, dtype=torch.long), self.source.flip(1)], 1)


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.embedding, self.out = nn.Embedding(SIZE, 16), nn.Linear(16, SIZE)
        self.encoder, self.decoder = nn.GRU(16, 16, batch_first=True), nn.GRU(16, 16, batch_first=True)

    def forward(self, source, read):
        return self.out(self.decoder(self.embedding(read), self.encoder(self.embedding(source))[1])[0])


torch.manual_seed(0)
model = Model()
optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
print(__name__, __package__, sys.argv[1:])
for i in range(int(sys.argv[1])):
    row = pickle.loads(pickle.dumps(Row(i)))
    logits = model(row.source, row.target[:, :-1])
    loss = nn.functional.cross_entropy(logits.reshape(-1, SIZE), row.target[:, 1:].reshape(-1))
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
raise ValueError("no more rows")
