"""Does the loss proxy tell the truth? Channels and sets taken out, on text it was not measured on."""
