"""How the packed engine trains a model of transformers without padding, and with as little other work as is possible.

`unpadded` wraps a model so that only real tokens pass through it; `layout` says which token belongs to which row,
`attention` keeps rows apart, `head` computes the loss over a vocabulary in place, `lookup` embeds without a gradient as
large as the table, `dropout` draws cheaply on a CPU, and `weights` holds parameters, gradients and AdamW's state in
flat buffers. `recording` repeats a model's body on a GPU, `writing` lets encoder-decoders write.
"""
