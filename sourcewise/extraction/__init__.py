"""Features of recordings and videos by pretrained encoders, with a record of how they were made."""
