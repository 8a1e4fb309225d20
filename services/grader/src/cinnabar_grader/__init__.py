"""cinnabar_grader"""
