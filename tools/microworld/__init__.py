"""The generator of the embedded data: English, French, questions, headlines and Python programs from small grammars.

The suite reads the stored output, `touchstone/sources/embedded/*.jsonl.gz`, and never imports this package. Run
`python -m tools.microworld.generate` to write the files again. A change of their content changes the fingerprints, so
all embedded expectations must be measured again.

Row i of a split depends on (split, i) alone. A name that occurs in one split never occurs in the other; the context
words occur in both.

Modules, from the bottom up: `draws` (random draws), `names`, `frames` and `topics` (patterns of sentences), `grammar`
(documents and sentences as structure), then the texts made from them: `english`, `french`, `headlines`, `questions`.
`programs` makes the Python programs from `program_steps` and `program_models`.
"""
