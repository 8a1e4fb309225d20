"""cinnabar_local"""
