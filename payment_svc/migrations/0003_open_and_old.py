from tortoise import migrations
from tortoise.migrations import operations as ops
from tortoise.indexes import Index

class Migration(migrations.Migration):
    dependencies = [('models', '0002_unsettled')]

    initial = False

    operations = [
        ops.AddIndex(
            model_name='SagaStep',
            index=Index(fields=['state', 'changed_at']),
        ),
    ]
