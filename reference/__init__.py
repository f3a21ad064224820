"""Reference implementation of the six NLP training pipelines of the Hugging Face course, chapter 7."""
