"""The page that upscales in a browser, and the server that shows it on this machine."""
