"""cinnabar_storage"""
