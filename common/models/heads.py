"""The heads: from the vectors of the trained layers to logits.

Every head takes `states`, the vectors [batch, tokens, hidden] that entered the first trained layer
and those that left each of them, and `mask` [batch, tokens], in which 0 is padding.
`common.models.mean_pooled.MeanHead` is the one that is not transformers' own.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from common.models.whitening import FeatureWhitening

# In a mask of tokens: 0 is padding, 1 a token, this a token that a masked language model predicts.
PREDICTED = 2


def last_layer(head: nn.Module) -> nn.Linear:
    """The layer of a head that the logits come from."""
    layer = head.last
    assert isinstance(layer, nn.Linear)
    return layer


class PooledHead(nn.Module):
    """BERT's own head: tanh pooler on [CLS], dropout, linear."""

    def __init__(self, pooler: nn.Module, dropout: nn.Module, classifier: nn.Linear) -> None:
        super().__init__()
        self.pooler = pooler
        self.dropout = dropout
        self.classifier = classifier

    @property
    def last(self) -> nn.Linear:
        """The layer that the logits come from."""
        return self.classifier

    def forward(self, states: Sequence[Tensor], mask: Tensor) -> Tensor:
        """Logits [batch, labels]."""
        logits: Tensor = self.classifier(self.dropout(self.pooler(states[-1])))
        return logits


class SequenceHead(nn.Module):
    """RoBERTa's and ELECTRA's own head, a module that reads the whole sequence."""

    def __init__(self, classifier: nn.Module) -> None:
        super().__init__()
        self.classifier = classifier

    @property
    def last(self) -> nn.Linear:
        """The layer that the logits come from."""
        layer = self.classifier.out_proj
        assert isinstance(layer, nn.Linear)
        return layer

    def forward(self, states: Sequence[Tensor], mask: Tensor) -> Tensor:
        """Logits [batch, labels]."""
        logits: Tensor = self.classifier(states[-1])
        return logits


class FirstTokenHead(nn.Module):
    """DistilBERT's own head: linear with ReLU on [CLS], dropout, linear."""

    def __init__(self, before: nn.Module, dropout: nn.Module, classifier: nn.Linear) -> None:
        super().__init__()
        self.pre_classifier = before
        self.dropout = dropout
        self.classifier = classifier

    @property
    def last(self) -> nn.Linear:
        """The layer that the logits come from."""
        return self.classifier

    def forward(self, states: Sequence[Tensor], mask: Tensor) -> Tensor:
        """Logits [batch, labels]."""
        first = torch.relu(self.pre_classifier(states[-1][:, 0]))
        logits: Tensor = self.classifier(self.dropout(first))
        return logits


class TokenHead(nn.Module):
    """The families' own head for tagging words: one linear layer on every vector.

    `conditioning` whitens the vectors while the model is trained, as in `MeanHead`.
    """

    def __init__(self, dropout: nn.Module, classifier: nn.Linear, scale: float) -> None:
        super().__init__()
        self.dropout = dropout
        # The name is part of checkpoints and messages.
        self.conditioning: nn.Module | None = FeatureWhitening(classifier.in_features, scale)
        self.classifier = classifier

    @property
    def last(self) -> nn.Linear:
        """The layer that the logits come from."""
        return self.classifier

    def pool(self, states: Sequence[Tensor], mask: Tensor) -> Tensor:
        """The last layer's vectors, [tokens without padding, hidden]."""
        return states[-1][mask.bool()].float()

    def forward(self, states: Sequence[Tensor], mask: Tensor) -> Tensor:
        """Logits [batch, tokens, labels]."""
        vectors = self.dropout(states[-1])
        if self.conditioning is not None:
            vectors = self.conditioning(vectors)
        logits: Tensor = self.classifier(vectors)
        return logits


class MaskedHead(nn.Module):
    """The families' own head for masked language models, at the positions to predict alone.

    `transform` is trained.  `decoder` has the transposed input embeddings and is not trained.
    """

    def __init__(self, transform: nn.Module, decoder: nn.Linear) -> None:
        super().__init__()
        self.transform = transform
        # In a list, so that it is no part of what travels: it is as large as the vocabulary.
        self.decode = [decoder]

    @property
    def last(self) -> nn.Linear:
        """The layer that the logits come from."""
        return self.decode[0]

    def forward(self, states: Sequence[Tensor], mask: Tensor) -> Tensor:
        """Logits [batch, k, vocabulary] at each row's `PREDICTED` positions, in order.

        Rows with fewer than k such positions have meaningless logits behind.
        """
        predicted = mask == PREDICTED
        most = max(int(predicted.sum(1).max()), 1) if len(mask) else 1
        places = predicted.int().argsort(dim=1, descending=True, stable=True)[:, :most]
        vectors = states[-1].gather(1, places[..., None].expand(-1, -1, states[-1].shape[-1]))
        decoder = self.decode[0].to(vectors.device)
        logits: Tensor = decoder(self.transform(vectors))
        return logits
