"""Scripts that made the embedded teachers: trained weights, references, quality. Run them from a checkout's root."""
