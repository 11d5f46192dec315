from tortoise import migrations
from tortoise.migrations import operations as ops
from uuid import uuid4
from tortoise import fields

class Migration(migrations.Migration):
    initial = True

    operations = [
        ops.CreateModel(
            name='CommandRecord',
            fields=[
                ('command_id', fields.CharField(primary_key=True, unique=True, db_index=True, max_length=64)),
                ('fingerprint', fields.CharField(max_length=64)),
                ('answer_type', fields.CharField(max_length=64)),
                ('answer', fields.TextField(unique=False)),
                ('created_at', fields.DatetimeField(auto_now=False, auto_now_add=False)),
            ],
            options={'table': 'command_record', 'app': 'models', 'pk_attr': 'command_id', 'table_description': 'outcomes of commands that are no sagas'},
            bases=['Model'],
        ),
        ops.CreateModel(
            name='OutboxRow',
            fields=[
                ('id', fields.UUIDField(primary_key=True, default=uuid4, unique=True, db_index=True)),
                ('key', fields.CharField(max_length=64)),
                ('type', fields.CharField(max_length=64)),
                ('body', fields.TextField(unique=False)),
                ('traceparent', fields.CharField(max_length=64)),
                ('parked_because', fields.CharField(null=True, max_length=64)),
                ('detail', fields.TextField(null=True, unique=False)),
                ('staged_at', fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ('due_at', fields.DatetimeField(db_index=True, auto_now=False, auto_now_add=False)),
            ],
            options={'table': 'outbox', 'app': 'models', 'pk_attr': 'id', 'table_description': 'events waiting for the confirm of the broker'},
            bases=['Model'],
        ),
        ops.CreateModel(
            name='Payment',
            fields=[
                ('payment_id', fields.CharField(primary_key=True, unique=True, db_index=True, max_length=64)),
                ('user_id', fields.CharField(max_length=64)),
                ('reservation_id', fields.CharField(max_length=64)),
                ('token', fields.CharField(max_length=64)),
                ('amount', fields.BigIntField()),
                ('state', fields.CharField(max_length=9)),
                ('expires_at', fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ('paid_at', fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ('settled_at', fields.DatetimeField(null=True, auto_now=False, auto_now_add=False)),
            ],
            options={'table': 'payment', 'app': 'models', 'pk_attr': 'payment_id', 'table_description': 'payments, kept for ever'},
            bases=['Model'],
        ),
        ops.CreateModel(
            name='SagaStep',
            fields=[
                ('saga_id', fields.CharField(primary_key=True, unique=True, db_index=True, max_length=64)),
                ('state', fields.CharField(max_length=8)),
                ('fingerprint', fields.CharField(null=True, max_length=64)),
                ('answer_type', fields.CharField(max_length=64)),
                ('answer', fields.TextField(unique=False)),
                ('created_at', fields.DatetimeField(auto_now=False, auto_now_add=False)),
                ('changed_at', fields.DatetimeField(auto_now=False, auto_now_add=False)),
            ],
            options={'table': 'saga_step', 'app': 'models', 'pk_attr': 'saga_id', 'table_description': 'what became of a saga in this service'},
            bases=['Model'],
        ),
    ]
