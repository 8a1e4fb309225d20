"""cinnabar_common"""
