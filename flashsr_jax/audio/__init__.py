"""Sound as arrays and as files: front end, filters, bandwidth, resampling, decoding and encoding, pictures."""

SAMPLE_RATE = 48_000  # of what every network sees and makes
HOP = 480  # samples of a mel frame
WINDOW_SAMPLES = 245_760  # 5.12 s, the published window
