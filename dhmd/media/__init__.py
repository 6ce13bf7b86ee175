"""Files of film, sound and stills: the one way in which live runs and training read them."""
