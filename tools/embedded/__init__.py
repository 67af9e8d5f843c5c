"""The scripts that made the embedded teachers: trained weights, references, quality. Run from a checkout's root."""
