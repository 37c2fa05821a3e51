"""What tags, scores and training share: pretrained towers, and the pixels that they are given."""
