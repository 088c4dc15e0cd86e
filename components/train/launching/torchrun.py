"""torchrun that ends when the step that started it dies: workers never train on as orphans."""

from components.train.launching.process import die_with_parent

if __name__ == "__main__":
    die_with_parent()
    from torch.distributed.run import main

    main()
