"""The packed engine: train a transformers model without computing padding.

A batch of B padded rows becomes one row that holds only the real tokens, one example after the other. `unpadded` wraps
a model to do that: it packs the inputs, runs the model's own layers on them, and pads the outputs again. Of these
layers only attention mixes tokens, so `attention` needs to know where each row begins and ends: the `layout`.
`modules` replaces three kinds of modules by cheaper ones: large embeddings, dropout, and the output layer with its
loss. `weights` keeps parameters, gradients and AdamW's state in flat buffers, in float32 even when the model computes
in bfloat16. `engine` is the training loop over all of these. `generation` and `decoder` replace `model.generate` for
encoder-decoder models.
"""
