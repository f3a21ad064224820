"""How the packed engine trains a model of transformers without padding, and with as little other work as is possible.

`unpadded` wraps a model so that only real tokens pass through it; `layout` says which token belongs to which row,
`attention` keeps rows apart, `head` computes the loss over a vocabulary in place, `lookup` embeds without a gradient as
large as the table, `dropout` draws cheaply on a CPU, and `weights` holds parameters, gradients and AdamW's state in
flat buffers.

Encoder-decoders also write: `search` is greedy and beam search under the `rules` of transformers' settings, `decoder`
computes token by token what a model of one of the known `families` does, and `vocabulary_scores` (with `projection`)
finds the best next tokens.
"""
