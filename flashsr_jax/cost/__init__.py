"""What upscaling and training cost: measured here, and planned for devices that are not here."""
