"""Frames in, maps out.

Read in this order:

    threads     work ahead and behind, bounded
    image       the one reader of pictures
    whole       whether a video file is complete
    read        video, folder, picture, camera -> frames
    write       maps -> PNG, gray video, array
    overlay     colors over the frames, mp4, sound
"""
